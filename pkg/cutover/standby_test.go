package cutover

import (
	"strings"
	"testing"

	"replicator/pkg/evidence"
)

// madeWhenSaid makes a topic when a run says that it waits for it.
type madeWhenSaid struct {
	t    *testing.T
	g    *guarded
	name string
	said []string
}

func (m *madeWhenSaid) Event(evidence.Event) {}

func (m *madeWhenSaid) Progress(_, text string) {
	if m.said = append(m.said, text); len(m.said) > 1 {
		return
	}
	if _, err := m.g.admin.Admin().CreateTopic(m.t.Context(), 1, 1, map[string]*string{"cleanup.policy": new("compact")}, m.name); err != nil {
		m.t.Error(err)
	}
}

// A daemon that has just begun makes its journal first: a command that comes in between
// waits for the rest, and says so.
func TestADaemonThatHasJustBegunIsWaitedFor(t *testing.T) {
	g := startGuarded(t)
	s := pairOf(true)
	s.New.Cluster = g.admin
	s.Forward.Options.JournalTopic, s.Forward.CheckpointsTopic = "never", "checkpoints"
	if _, err := openStandby(t.Context(), s, Request{}); err == nil || !strings.Contains(err.Error(), "no link of this name has copied") {
		t.Errorf("a link that never was: %v", err) // at once
	}
	s.Forward.Options.JournalTopic = "journal"
	if _, err := g.admin.Admin().CreateTopic(t.Context(), 1, 1, map[string]*string{"cleanup.policy": new("compact")}, "journal"); err != nil {
		t.Fatal(err)
	}
	w := &madeWhenSaid{t: t, g: g, name: "checkpoints"}
	standby, err := openStandby(t.Context(), s, Request{Watch: w})
	if err != nil {
		t.Fatal(err)
	}
	standby.Close()
	if len(w.said) == 0 || !strings.Contains(w.said[0], "waiting for the daemon of link east->west") || !strings.Contains(w.said[0], "checkpoints") {
		t.Errorf("it said %q", w.said)
	}
}
