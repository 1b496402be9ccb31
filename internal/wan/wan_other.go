//go:build !linux

package wan

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"time"
)

// A WAN is a link to a far place. There is none on this system.
type WAN struct{ Near, Far netip.Addr }

var errOther = fmt.Errorf("%w: it needs Linux", ErrUnavailable)

// Open says that Linux is needed.
func Open(context.Context, Config) (*WAN, error) { return nil, errOther }

// Command is not there.
func (*WAN) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Err = errOther
	return cmd
}

// Do is not there.
func (*WAN) Do(func() error) error { return errOther }

// Set is not there.
func (*WAN) Set(time.Duration, time.Duration, int64) error { return errOther }

// Stats are nothing.
func (*WAN) Stats() Stats { return Stats{} }

// Namespace is not there.
func (*WAN) Namespace() string { return "" }

// Close does nothing.
func (*WAN) Close() error { return nil }
