package observe

import (
	"context"
	"fmt"
	"strings"
	"time"

	"replicator/internal/status"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"replicator/pkg/mirror"
)

const (
	notifyStarting = 250 * time.Millisecond // between looks until all links run
	notifyRunning  = 10 * time.Second       // between looks after that, or half the watchdog's interval if shorter
)

// Notify tells the service manager how the daemon is until ctx ends: READY=1
// once every link has its lanes, STATUS in words, WATCHDOG=1 while the loops
// answer, and STOPPING=1 at the end. Without a service manager it returns at
// once. A manager that does not listen is no reason to stop copying: that is a
// line in the log.
func Notify(ctx context.Context, source *Source, log *zap.Logger) {
	n := notifier{source: source, log: log}
	if supported, err := daemon.SdNotify(false, "STATUS=starting"); !supported && err == nil {
		return
	}
	var err error
	if n.watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
		log.Warn("read watchdog interval", zap.Error(err))
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			n.send(daemon.SdNotifyStopping, "STATUS=stopping")
			return
		case <-timer.C:
			n.look(ctx)
			timer.Reset(n.interval())
		}
	}
}

type notifier struct {
	source   *Source
	log      *zap.Logger
	watchdog time.Duration // 0: none
	ready    bool          // READY=1 has been sent
	told     string        // last STATUS
	failed   bool          // the last message could not be sent
}

func (n *notifier) interval() time.Duration {
	d := notifyRunning
	if !n.ready {
		d = notifyStarting
	}
	if n.watchdog > 0 {
		d = min(d, n.watchdog/2)
	}
	return d
}

// look takes a snapshot and tells what has to be told. A loop that does not
// answer leaves the watchdog unfed.
func (n *notifier) look(ctx context.Context) {
	status, err := n.source.Get(ctx)
	if err != nil {
		return // stopping
	}
	var lines []string
	if n.watchdog > 0 && alive(status) == nil {
		lines = append(lines, daemon.SdNotifyWatchdog)
	}
	becomesReady := !n.ready && running(status)
	if becomesReady {
		lines = append(lines, daemon.SdNotifyReady)
	}
	words := summary(status)
	if words != n.told {
		lines = append(lines, "STATUS="+words)
	}
	if len(lines) > 0 && n.send(lines...) {
		n.told = words
		n.ready = n.ready || becomesReady
	}
}

// send says whether the message was taken. Of failures in a row, the first is
// logged.
func (n *notifier) send(lines ...string) bool {
	_, err := daemon.SdNotify(false, strings.Join(lines, "\n"))
	if err != nil && !n.failed {
		n.log.Warn("notify service manager", zap.Error(err))
	}
	n.failed = err != nil
	return err == nil
}

// running reports whether every link has its lanes, halted ones included: a
// restart by the service manager would not mend them.
func running(s status.Status) bool {
	for _, l := range s.Links {
		if l.State == mirror.LinkStarting || l.State == Silent {
			return false
		}
	}
	return len(s.Links) > 0
}

// summary says in one line how the links are.
func summary(s status.Status) string {
	words := make([]string, 0, len(s.Links))
	for _, l := range s.Links {
		w := l.Name + " " + string(l.State)
		if l.State != Silent {
			n := 0
			for _, k := range l.LaneStates {
				n += k
			}
			w += fmt.Sprintf(", %d of %d lanes copying", l.LaneStates[mirror.LaneCopying], n)
			if halted := l.LaneStates[mirror.LaneHalted]; halted > 0 {
				w += fmt.Sprintf(", %d halted", halted)
			}
			if l.State == mirror.LinkStarting && l.Reason != "" {
				w += ": " + l.Reason
			}
		}
		words = append(words, Printable(w))
	}
	return strings.Join(words, "; ")
}
