// Package kafkatest runs real Kafka clusters for tests, from nothing but a JVM
// and Maven.
//
// It promises:
//
//   - A pinned Kafka is fetched once, through Maven, into a cache. Two processes
//     may ask at the same time, and a fetch that was cut off leaves nothing that
//     looks whole.
//   - A [Cluster] listens on loopback ports that nobody else is given while it
//     lives, not even while one of its brokers is down: a killed broker comes
//     back under the same address with the same data.
//   - No broker outlives the process that started it, however that process ends
//     (on Linux, by the parent-death signal). Data directories left behind by a
//     killed process are removed by the next one that starts a cluster.
//   - A test that could not run is never silent. Without a JVM it is skipped with
//     a recorded reason, and [Main] says at the end what was not run. With
//     E2E=required it fails instead.
//
// Brokers have three listeners. CLIENT is the one tests talk to, with the TLS,
// SASL and authorizer the [Config] asks for. INTERNAL is plaintext and its
// anonymous user is a super user: brokers talk over it among themselves, and so
// do [Cluster.Admin] and the Java tools, whatever CLIENT demands. CONTROLLER is
// for the KRaft quorum (Kafka 2.8 has a ZooKeeper of its own instead).
//
// [Config.MovableClock] lets a test put the brokers' wall clock wrong.
//
// // [Config.Network] puts the brokers elsewhere: another network namespace, a
// place behind a link with delay.
//
// Environment:
//
//	E2E         "required": a missing tool fails the test; "off": skip all
//	E2E_REPORT  a file to which Main adds a line of what ran and what did not
//	KAFKATEST_CACHE       where Kafka is kept, default os.UserCacheDir()/replicator
//	KAFKATEST_KEEP  not empty: data directories and logs stay
//	JAVA_HOME              the JVM, default: java of PATH
package kafkatest
