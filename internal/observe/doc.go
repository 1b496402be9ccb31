// Package observe shows a running daemon to those who look after it: metrics,
// HTTP endpoints, the log, and what the service manager is told.
//
// What it promises:
//
//   - One truth. Everything it shows is made from one value, [status.Status]:
//     a scrape, /status, /readyz, the watchdog and `replicator status` cannot
//     disagree. Nothing is counted a second time, and no record costs anything.
//   - Looking does not disturb. Snapshots are shared: however many ask, the
//     loops are asked one question at a time and at most four times a second.
//     Connections, requests, headers and times are bounded.
//   - Unknown is absent. A lag, an offset or an age that is not known has no
//     series; it is never shown as 0.
//   - Looking changes nothing. Only GET and HEAD are answered, and no path has
//     an effect. Requests for a foreign host or from a foreign origin are
//     refused, so that a web page of elsewhere cannot read the status through
//     a browser on this machine.
//   - A hung daemon is not called alive: /healthz and the watchdog hear from
//     the loops themselves.
//   - What others name (topics, brokers' messages) cannot command a terminal:
//     control and direction characters are escaped in the log and in /status.
//     Secrets are references ([cluster.Secret]) wherever this package meets
//     them.
//
// What it does not promise: that two scrapes see every event in between (the
// counters do), or a history (that is the metrics database's).
//
// # Alive and ready
//
// Alive means that the loops answer: restarting could help if they do not.
// Ready means that lanes are assigned and copied and none is halted: a restart
// would not help, a person may have to. They are kept apart on purpose. A
// halted lane must not get the daemon killed, because its neighbours still
// copy: the watchdog and the container's health check ask for alive, a gate
// before a cutover asks for ready. The service manager hears READY=1 when every
// link has its lanes, halted or not, for the same reason.
//
// # Why a collector of constant metrics
//
// Counters that are incremented where things happen would be a second account
// of what the loop already knows, with locks on the way of records. The
// collector reads one snapshot a scrape and makes series of it; what a lane
// that left took with it simply ends.
package observe
