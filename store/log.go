package store

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// bridge is a zap core that writes to slog. etcd says much at Info that nobody needs to read (every compaction, every
// snapshot), so Info becomes Debug.
type bridge struct {
	log  *slog.Logger
	with []zapcore.Field
}

// newZap returns a zap logger that writes to log. A fatal entry panics instead of ending the process, so that a start
// which goes wrong can be reported.
func newZap(log *slog.Logger) *zap.Logger {
	return zap.New(&bridge{log: log}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// expected says of entries that they tell nothing about a store of one member that has no HTTP port.
func expected(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed",
		// Of a new store, until its first term has been written; tried again.
		"failed to update storage version",
		"Failed to detect schema version":
		return true
	}
	return false
}

func (b *bridge) Enabled(l zapcore.Level) bool {
	return b.log.Enabled(context.Background(), level(l))
}

func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	return &bridge{log: b.log, with: append(b.with[:len(b.with):len(b.with)], fields...)}
}

func (b *bridge) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !b.Enabled(e.Level) || expected(e.Message) && e.Level <= zapcore.ErrorLevel {
		return c
	}
	return c.AddCore(e, b)
}

func (b *bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	attrs := make([]slog.Attr, 0, len(b.with)+len(fields))
	for _, fs := range [2][]zapcore.Field{b.with, fields} {
		for _, f := range fs {
			f.AddTo(enc)
		}
	}
	for _, fs := range [2][]zapcore.Field{b.with, fields} {
		for _, f := range fs {
			if v, ok := enc.Fields[f.Key]; ok {
				attrs = append(attrs, slog.Any(f.Key, v))
				delete(enc.Fields, f.Key)
			}
		}
	}
	b.log.LogAttrs(context.Background(), level(e.Level), e.Message, attrs...)
	return nil
}

func (b *bridge) Sync() error { return nil }
