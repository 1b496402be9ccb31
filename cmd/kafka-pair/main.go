// Command kafka-pair starts two real Kafka clusters on this machine, to try
// replicator by hand. It writes a configuration for them and runs until it is
// interrupted; then both clusters and their data are gone.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"replicator/internal/kafkatest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kafka-pair:", err)
		os.Exit(1)
	}
}

type options struct {
	brokers int
	version string
	config  string
	secure  bool
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("kafka-pair", flag.ContinueOnError)
	flags.IntVar(&o.brokers, "brokers", 1, "brokers of each cluster")
	flags.StringVar(&o.version, "version", kafkatest.Kafka4, "version of Kafka")
	flags.StringVar(&o.config, "config", "pair.yaml", "where to write the configuration of replicator")
	flags.BoolVar(&o.secure, "secure", false, "with TLS, SCRAM-SHA-512 and an authorizer")
	if err := flags.Parse(args); err != nil {
		return err
	}

	if err := ours(o.config); err != nil {
		return err
	}
	fmt.Printf("starting two clusters of Kafka %s (the first time it is fetched, about half a minute) ...\n", o.version)
	pair, err := kafkatest.LaunchPair(ctx, o.cluster("east"), o.cluster("west"))
	if err != nil {
		return err
	}
	defer pair.Close()
	yaml, err := pair.YAML("", "orders.*")
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.config, []byte(mark+yaml), 0o600); err != nil {
		return err
	}
	show(pair, o)
	<-ctx.Done()
	fmt.Println("stopping")
	return nil
}

// mark begins each configuration that is written here.
const mark = "# Written by kafka-pair, for clusters that are gone when it ends.\n"

// ours refuses to write over a configuration that somebody else wrote: the quick start of the
// README calls its own by the same name.
func ours(file string) error {
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at configuration: %w", err)
	case !bytes.HasPrefix(data, []byte(mark)):
		return fmt.Errorf("write configuration: %s is there and not of kafka-pair: move it away, or name another file with go run ./cmd/kafka-pair -config FILE", file)
	}
	return nil
}

func (o options) cluster(name string) kafkatest.Config {
	cfg := kafkatest.Config{
		Name: name, Version: o.version, Brokers: o.brokers, FullJIT: true,
		Properties: map[string]string{"auto.create.topics.enable": "true"},
	}
	if o.secure {
		cfg.TLS, cfg.SASL, cfg.Authorizer = kafkatest.ServerTLS, []string{kafkatest.Scram512}, true
	}
	return cfg
}

func show(pair *kafkatest.ClusterPair, o options) {
	for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
		fmt.Printf("\n%s  cluster id %s\n", c.Config().Name, c.ID())
		fmt.Printf("  bootstrap  %s\n", strings.Join(c.Bootstrap(), ","))
		if o.secure {
			fmt.Printf("  plaintext  %s (everything allowed)\n", strings.Join(c.InternalBootstrap(), ","))
		}
		for _, b := range c.Brokers() {
			fmt.Printf("  broker %d   pid %d, log %s\n", b.ID(), b.Process().PID(), b.LogPath())
		}
	}
	from, to := pair.Source.InternalBootstrap()[0], pair.Target.InternalBootstrap()[0]
	fmt.Printf(`
The configuration is in %[1]s. In other terminals:
  go run ./cmd/replicator run -c %[1]s
  seq 1000 | kcat -P -b %[2]s -t orders
  kcat -C -b %[3]s -t orders -e | wc -l
Ctrl-C ends both clusters and removes their data.
`, o.config, from, to)
}
