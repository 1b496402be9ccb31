package observe

import (
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"replicator/internal/config"
)

// Names of the fields every line of the log has. They do not change.
const (
	fieldTime    = "time"
	fieldLevel   = "level"
	fieldLogger  = "logger"
	fieldMessage = "msg"
)

// NewLogger makes the daemon's log: one JSON object a line with time (UTC,
// milliseconds), level, logger and msg, or the same for human eyes with the
// format console.
func NewLogger(cfg config.Log, w io.Writer) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil {
		return nil, fmt.Errorf("build log: level %q: want debug, info, warn or error", cfg.Level)
	}
	ec := zapcore.EncoderConfig{
		TimeKey: fieldTime, LevelKey: fieldLevel, NameKey: fieldLogger, MessageKey: fieldMessage,
		LineEnding:     "\n",
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeTime:     encodeTime,
		EncodeDuration: zapcore.SecondsDurationEncoder,
	}
	var enc zapcore.Encoder
	switch cfg.Format {
	case "json":
		enc = zapcore.NewJSONEncoder(ec)
	case "console":
		enc = zapcore.NewConsoleEncoder(ec)
	default:
		return nil, fmt.Errorf("build log: format %q: want json or console", cfg.Format)
	}
	out := zapcore.Lock(zapcore.AddSync(lineWriter{w}))
	return zap.New(zapcore.NewCore(enc, out, level), zap.ErrorOutput(out)), nil
}

func encodeTime(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(t.UTC().Format("2006-01-02T15:04:05.000Z"))
}
