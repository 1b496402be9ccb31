package hooks

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNothingOfTheGroupIsLeft(t *testing.T) {
	began := time.Now()
	r, err := one(t, Hook{Command: children("exit 0")})
	if err != nil || r.Exit != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v: the children held the output open", took)
	}
	for _, pid := range pids(t, r, 2) {
		gone(t, pid)
	}
}

// A service that a hook starts in a session of its own is left alone, and does not hold the hook up.
func TestAServiceOfItsOwnSessionGoesOn(t *testing.T) {
	began := time.Now()
	r, err := one(t, Hook{Command: shell(`setsid sh -c 'echo $$; sleep 20' & sleep 0.3`)})
	if err != nil || r.Exit != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if strings.TrimSpace(r.Output) == "" {
		t.Fatal("the service did not tell its number")
	}
	pid := pids(t, r, 1)[0]
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("process %d: %v", pid, err)
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	gone(t, pid)
}
