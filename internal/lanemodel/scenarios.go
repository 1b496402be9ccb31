package lanemodel

// Protocol is the protocol's choice of options.
var Protocol = Options{SkipFirst: true, SkipClosed: true}

// Quick are the scenarios of the ordinary test. Each is small enough to be
// exhausted in a second or two.
var Quick = []Scenario{
	{Name: "take over", Records: "ff", Daemons: 2, Epochs: 3, Faults: "crash late"},
	{Name: "answers lost", Records: "ff", Daemons: 2, Epochs: 3, Faults: "lost pause refuse"},
	{Name: "hole", Records: "f_f", Daemons: 2, Epochs: 3, Faults: "late"},
	{Name: "old records", Records: "oo", Daemons: 2, Epochs: 3, Faults: "late forget pause"},
	{Name: "old records, restart", Records: "oo", Daemons: 2, Epochs: 3, Faults: "late restart"},
	{Name: "old then fresh", Records: "of", Daemons: 2, Epochs: 3, Faults: "lost forget refuse"},
	{Name: "window", Records: "foff", Daemons: 1, Epochs: 3, Faults: "refuse forget late restart"},
	{Name: "window of old records", Records: "ooo", Daemons: 1, Epochs: 3, Faults: "refuse forget restart late"},
	{Name: "idle for a day", Records: "fff", Daemons: 1, Epochs: 3, Faults: "refuse day late"},
	{Name: "validate", Records: "fo", Daemons: 2, Epochs: 2, Faults: "day pause=2 forget"},
	{Name: "clean stop", Records: "oo", Daemons: 2, Epochs: 3, Faults: "stop late forget"},
	{Name: "failover", Records: "f_f", Daemons: 1, Epochs: 3, Command: true, Faults: "late pause"},
	{Name: "failover, two daemons", Records: "ff", Daemons: 2, Epochs: 3, Command: true, Faults: "late"},
	{Name: "failover, old records", Records: "oo", Daemons: 1, Epochs: 3, Command: true, Faults: "late forget pause"},
	{Name: "failover, new id", Records: "ff", Daemons: 1, Epochs: 2, Command: true, Faults: "late txn-expire pause"},
	{Name: "failover, guarded", Records: "fo", Daemons: 1, Epochs: 4, Command: true, Faults: "late stray day pause"},
	{Name: "new id", Records: "ff", Daemons: 2, Epochs: 2, Faults: "late txn-expire"},
	{Name: "lost id", Records: "ff", Daemons: 2, Epochs: 2, Faults: "late txn-lost"},
	{Name: "lost id after a clean stop", Records: "oo", Daemons: 2, Epochs: 2, Faults: "stop txn-lost forget"},
	{Name: "epoch given twice", Records: "of", Daemons: 2, Epochs: 2, Faults: "txn-back forget late"},
	{Name: "coordinator", Records: "ff", Daemons: 2, Epochs: 3, Faults: "copy-control txn-timeout stray-init"},
	{Name: "tail lost", Records: "ff", Daemons: 2, Epochs: 3, Faults: "truncate pause"},
	{Name: "tail lost, old records", Records: "oo", Daemons: 2, Epochs: 3, Faults: "truncate forget"},
}

// Long are the scenarios with more records, epochs and faults at once; each
// has some million to some ten million states.
var Long = []Scenario{
	{Name: "long take over", Records: "ff_f", Daemons: 2, Epochs: 3, Faults: "crash late lost refuse"},
	{Name: "long hole", Records: "f_f", Daemons: 2, Epochs: 3, Faults: "late restart pause"},
	{Name: "long old records", Records: "oo", Daemons: 2, Epochs: 4, Faults: "late forget=2 pause restart"},
	{Name: "long mixed", Records: "foof", Daemons: 2, Epochs: 3, Faults: "late forget pause refuse"},
	{Name: "long validate", Records: "fof", Daemons: 2, Epochs: 3, Faults: "day pause=2 forget late"},
	{Name: "long clean stop", Records: "oo", Daemons: 2, Epochs: 4, Faults: "stop=2 late forget"},
	{Name: "long stop, mixed", Records: "foo", Daemons: 2, Epochs: 3, Faults: "stop late forget pause"},
	{Name: "long failover", Records: "fo_f", Daemons: 2, Epochs: 3, Command: true, Faults: "late forget"},
	{Name: "long failover, one daemon", Records: "fo_f", Daemons: 1, Epochs: 4, Command: true, Faults: "crash late lost pause restart forget"},
	{Name: "long new id", Records: "oo", Daemons: 2, Epochs: 3, Faults: "late txn-expire pause forget"},
	{Name: "long lost id", Records: "oo", Daemons: 2, Epochs: 2, Faults: "stop late txn-lost pause forget"},
	{Name: "long epoch given twice", Records: "of", Daemons: 2, Epochs: 3, Faults: "txn-back forget late pause"},
	{Name: "long coordinator", Records: "ff", Daemons: 2, Epochs: 4, Faults: "late copy-control txn-timeout stray-init"},
	{Name: "long tail lost", Records: "fff", Daemons: 2, Epochs: 3, Faults: "truncate late pause"},
	{Name: "long tail lost, four epochs", Records: "ff", Daemons: 2, Epochs: 4, Faults: "truncate late"},
	{Name: "long tail lost, old records", Records: "oo", Daemons: 2, Epochs: 3, Faults: "truncate=2 late forget stop"},
}

// Find returns the scenario with this name.
func Find(name string) (Scenario, bool) {
	for _, list := range [][]Scenario{Quick, Long} {
		for _, sc := range list {
			if sc.Name == name {
				return sc, true
			}
		}
	}
	return Scenario{}, false
}
