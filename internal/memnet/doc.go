// Package memnet is a network in memory for tests in fake time. Its
// connections are full duplex streams with buffers, delays and deadlines, and
// every goroutine that waits in it is durably blocked in the sense of
// testing/synctest, so that time jumps to the next event. A Network has to be
// made inside the bubble that uses it.
//
// Addresses are IP addresses and ports, as "10.0.0.1:9092". A listener is made
// with Network.Listen, or with Network.ListenOn for a fake cluster that insists
// on 127.0.0.1; a connection with the function that Network.Dialer gives for
// the host that dials.
//
// Faults are rules. A Rule applies to the connections it matches, those that
// exist and those to come, until it is lifted:
//   - Delay: bytes of one direction arrive later.
//   - Hold: bytes of one direction stay in the network. Lift delivers them, even if the side that wrote them has
//     closed its connection long ago; that is a request that arrives late. Drop throws them away.
//   - Mute: bytes of one direction vanish; the connection stays open.
//   - Refuse: nobody answers at the address: dials fail at once.
//   - Partition: between two sets of hosts nothing arrives, and dials hang.
//   - CutAfter: a connection is reset once so many more bytes were written in one direction.
//
// Network.Cut resets connections now. A Rule counts what it did, so that a test
// can assert that its fault happened.
//
// What it does not do: lose or reorder bytes within a stream, or bound the
// bandwidth. A write to a connection whose other side has closed succeeds and
// goes nowhere.
package memnet
