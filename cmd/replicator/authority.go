package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"replicator/internal/config"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
)

func newAuthorityCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "authority",
		Short: "Tell which region is authoritative",
		Long: `Shows which of a pair's two regions is authoritative, since when and by whom. Both
clusters have a copy of that; a link appends as the copy on its target says. Links
whose topics have other names on the target (naming prefix or map) have no
authority: both regions write to topics of their own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuthorityShow(a), newAuthorityHistory(a), newAuthorityInit(a), newAuthoritySettle(a))
	return cmd
}

// governedPair is a pair of the configuration and the links that obey its authority.
type governedPair struct {
	authority.Pair
	links []*config.Link
}

// implied is the region that is authoritative without a record: the one the links
// copy from. Empty where they copy both ways.
func (p *governedPair) implied() string {
	from := p.links[0].From
	for _, l := range p.links {
		if l.From != from {
			return ""
		}
	}
	return from
}

// choosePair finds the pair of the link named, or the only one there is.
func choosePair(cfg *config.Config, link string) (*governedPair, error) {
	if link != "" {
		l, err := chooseLink(cfg, link)
		if err != nil {
			return nil, err
		}
		if !l.Governed() {
			return nil, coded(exitUsage, fmt.Errorf("choose pair: link %s has naming: %s, and so no authority: both regions may write to topics of their own", l.Name, l.Naming), "")
		}
		return pairOf(cfg, authority.PairOf(l.From, l.To)), nil
	}
	var pairs []authority.Pair
	for i := range cfg.Links {
		if p := authority.PairOf(cfg.Links[i].From, cfg.Links[i].To); cfg.Links[i].Governed() && !slices.Contains(pairs, p) {
			pairs = append(pairs, p)
		}
	}
	switch len(pairs) {
	case 0:
		return nil, coded(exitUsage, errors.New("choose pair: no link of the configuration has naming: identity, so there is no authority"), "links of naming prefix or map copy beside what is written on their target")
	case 1:
		return pairOf(cfg, pairs[0]), nil
	}
	names := make([]string, len(pairs))
	for i, p := range pairs {
		names[i] = p.String()
	}
	return nil, coded(exitUsage, fmt.Errorf("choose pair: there are several: %s", strings.Join(names, ", ")), "name a link of it with --link")
}

func pairOf(cfg *config.Config, p authority.Pair) *governedPair {
	out := &governedPair{Pair: p}
	for i := range cfg.Links {
		if l := &cfg.Links[i]; l.Governed() && authority.PairOf(l.From, l.To) == p {
			out.links = append(out.links, l)
		}
	}
	return out
}

// regionCopy is one cluster of a pair and what its copy says.
type regionCopy struct {
	alias   string
	cluster *cluster.Cluster // nil: it could not be reached
	state   authority.State
	err     error // why the state is not known
}

func (c *regionCopy) config(p authority.Pair) authority.Config {
	return authority.Config{Cluster: c.cluster, Pair: p}
}

// readCopies opens both clusters side by side and reads their copies. What is wrong
// with one of them stands in it.
func readCopies(ctx context.Context, cfg *config.Config, p authority.Pair) []*regionCopy {
	copies := []*regionCopy{{alias: p.A}, {alias: p.B}}
	var both sync.WaitGroup
	for _, c := range copies {
		both.Go(func() {
			if c.cluster, c.err = cluster.Open(ctx, c.alias, cfg.Clusters[c.alias], cluster.Options{Log: zap.NewNop()}); c.err == nil {
				c.state, c.err = authority.Read(ctx, c.config(p))
			}
		})
	}
	both.Wait()
	return copies
}

func closeCopies(copies []*regionCopy) {
	for _, c := range copies {
		if c.cluster != nil {
			c.cluster.Close()
		}
	}
}

// allFailed is why neither copy is known, nil if one is.
func allFailed(copies []*regionCopy) error {
	var errs []error
	for _, c := range copies {
		if c.err == nil {
			return nil
		}
		errs = append(errs, c.err)
	}
	return coded(exitFailed, fmt.Errorf("read authority: neither copy is known: %w", errors.Join(errs...)), "check their sections of the configuration and their brokers")
}
