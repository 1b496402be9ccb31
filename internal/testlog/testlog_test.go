package testlog_test

import (
	"testing"

	"go.uber.org/zap"

	"replicator/internal/testlog"
)

// testing panics at a line that comes behind the end of its test.
func TestALineBehindTheEndIsDropped(t *testing.T) {
	var log *zap.Logger
	t.Run("a test", func(t *testing.T) {
		log = testlog.New(t)
		t.Cleanup(func() { log.Info("what is cleaned up is logged") })
	})
	log.Warn("a connection could not be opened")
}
