// Package cluster is one Kafka cluster as the replicator sees it: its
// configuration, its identity, and every connection to it.
//
// What it promises:
//
//   - No connection leaves the declared boundary. Control clients (kgo, kadm),
//     data connections (wire.Conn) and the token requests of OAUTHBEARER all go
//     through one guard, which resolves a name, checks the addresses it got,
//     and dials only an address it has checked. A broker that advertises an
//     address outside the boundary is refused, at every reconnect anew.
//   - The cluster is the one that was meant: Open compares the cluster id with
//     the configured one before anybody gets a client.
//   - Certificates and secrets are read again for each new connection, so they
//     can be rotated without a restart.
//   - A secret never prints. Configuration holds references to secrets; the
//     values live only as long as an authentication takes.
//
// What it does not promise: that the addresses inside the boundary are the
// right machines. That is what TLS and the cluster id are for.
package cluster
