package cluster

import (
	"testing"

	"go.uber.org/goleak"
)

// No goroutine outlives what the tests close.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
