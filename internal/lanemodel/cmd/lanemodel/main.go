// Command lanemodel searches scenarios of the lane protocol and tells the
// shortest way into a violation. See package lanemodel.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"replicator/internal/lanemodel"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lanemodel:", err)
		os.Exit(1)
	}
}

func run() error {
	var own lanemodel.Scenario
	own.Name = "flags"
	flag.StringVar(&own.Records, "records", "", "source log of a scenario of your own: f fresh, o old, _ hole; empty: the built-in scenarios")
	flag.StringVar(&own.Faults, "faults", "", "its faults, as in 'crash late=2'; known: "+strings.Join(lanemodel.FaultNames(), " "))
	flag.IntVar(&own.Daemons, "daemons", 2, "its daemons, 1 or 2")
	flag.IntVar(&own.Epochs, "epochs", 3, "its epochs for one producer id")
	flag.BoolVar(&own.Command, "command", false, "with the failover command")
	name := flag.String("scenario", "", "only the built-in scenario of this name")
	long := flag.Bool("long", false, "the long scenarios instead of the quick ones (minutes, gigabytes)")
	without := flag.String("without", "", "rules to take out, comma separated: "+strings.Join(lanemodel.RuleNames(), " "))
	with := flag.String("with", "", "options to switch on beyond the protocol's: "+strings.Join(lanemodel.OptionNames(), " "))
	limit := flag.Int("limit", 60_000_000, "states after which a search ends unfinished")
	flag.Parse()

	rules, options := lanemodel.AllRules(), lanemodel.Protocol
	var err error
	for _, r := range fields(*without) {
		if rules, err = rules.Without(r); err != nil {
			return err
		}
	}
	for _, o := range fields(*with) {
		if options, err = options.With(o); err != nil {
			return err
		}
	}
	scenarios := lanemodel.Quick
	if *long {
		scenarios = lanemodel.Long
	}
	switch {
	case own.Records != "":
		scenarios = []lanemodel.Scenario{own}
	case *name != "":
		sc, ok := lanemodel.Find(*name)
		if !ok {
			return fmt.Errorf("find scenario %q: no such name", *name)
		}
		scenarios = []lanemodel.Scenario{sc}
	}
	violated := 0
	for _, sc := range scenarios {
		start := time.Now()
		res, err := lanemodel.Run(sc, rules, options, *limit)
		if err != nil {
			return err
		}
		fmt.Printf("%v\n%s%.1f s, every record copied in some run: %v, overflow: %v\n\n", sc, res.Tell(), time.Since(start).Seconds(), res.Copied, res.Overflow)
		if res.Violation != "" {
			violated++
		}
	}
	if violated > 0 {
		return fmt.Errorf("%d scenarios violated", violated)
	}
	return nil
}

func fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
