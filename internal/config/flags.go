package config

import (
	"strings"

	"github.com/spf13/pflag"
)

// Flags are the settings a command takes on its command line.
type Flags struct {
	set    *pflag.FlagSet
	any    []string
	direct map[string]string // flag -> key
}

// AddFlags gives a command --set for every key, and short ways for the few
// that one changes by hand.
func AddFlags(fs *pflag.FlagSet) *Flags {
	f := &Flags{set: fs, direct: map[string]string{
		"listen":     "http.listen",
		"memory":     "limits.memory",
		"log-level":  "log.level",
		"log-format": "log.format",
	}}
	fs.StringArrayVar(&f.any, "set", nil, "set `key=value` over file and environment, such as links[0].start=latest (repeatable)")
	fs.String("listen", "", "`address` of metrics, health and status (http.listen)")
	fs.String("memory", "", "`size` of the budget for records on their way (limits.memory)")
	fs.String("log-level", "", "`level` of the log: debug, info, warn, error (log.level)")
	fs.String("log-format", "", "`format` of the log: json, console (log.format)")
	return f
}

// Settings returns what was given.
func (f *Flags) Settings() []Setting {
	var out []Setting
	for _, kv := range f.any {
		key, value, _ := strings.Cut(kv, "=")
		out = append(out, Setting{Key: key, Value: value, Flag: "--set " + key})
	}
	f.set.Visit(func(flag *pflag.Flag) {
		if key, ok := f.direct[flag.Name]; ok {
			out = append(out, Setting{Key: key, Value: flag.Value.String(), Flag: "--" + flag.Name})
		}
	})
	return out
}
