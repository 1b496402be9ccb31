package daemon

import (
	"context"
	"fmt"
	"time"

	"replicator/internal/status"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
)

// watcher is the one that follows a pair's authority on a cluster.
type watched struct {
	target string // alias
	pair   authority.Pair
}

// linkAuthority is what the copy of the authority on a link's target says of it.
type linkAuthority struct {
	*authority.LinkAuthority
	paired bool // there is a link of the other direction
}

var _ mirror.Authority = linkAuthority{}

// Sync reads the copy to its end.
func (a linkAuthority) Sync(ctx context.Context) (mirror.Permission, error) {
	s, err := a.Watcher.Sync(ctx)
	if err != nil {
		return mirror.Permission{}, err
	}
	ok, why := s.MayAppend(a.From, a.To)
	if s.Epoch() == 0 && a.paired {
		// Both directions are configured, and each would imply its own source: neither is meant.
		ok, why = false, fmt.Sprintf("no region is authoritative yet: name one with replicator authority init --region %s (or %s)", a.From, a.To)
	}
	return mirror.Permission{Append: ok, Why: why, Epoch: s.Epoch()}, nil
}

// authorityOf returns what governs a link, nil if nothing does. The target is open.
func (d *Daemon) authorityOf(l *link, target *cluster.Cluster) mirror.Authority {
	lc := l.cfg
	if !lc.Governed() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := watched{lc.To, authority.PairOf(lc.From, lc.To)}
	w := d.watchers[key]
	if w == nil {
		w = authority.Watch(authority.Config{Cluster: target, Pair: key.pair, Log: d.log})
		d.watchers[key] = w
		if d.watch != nil {
			d.watch(w)
		}
	}
	return linkAuthority{&authority.LinkAuthority{Watcher: w, From: lc.From, To: lc.To, Implied: lc.From}, l.paired}
}

// authorities sums up what is known of the pairs whose links obey an authority.
func (d *Daemon) authorities(now time.Time) []status.Authority {
	type pair struct {
		implied string
		copies  map[string]authority.Knowledge
	}
	pairs := map[authority.Pair]*pair{}
	var order []authority.Pair
	for _, l := range d.links {
		if !l.cfg.Governed() {
			continue
		}
		key := authority.PairOf(l.cfg.From, l.cfg.To)
		if pairs[key] == nil {
			pairs[key] = &pair{copies: map[string]authority.Knowledge{}}
			order = append(order, key)
			if !l.paired {
				pairs[key].implied = l.cfg.From
			}
		}
	}
	d.mu.Lock()
	for key, w := range d.watchers {
		if p := pairs[key.pair]; p != nil {
			p.copies[key.target] = w.Knowledge()
		}
	}
	d.mu.Unlock()
	var out []status.Authority
	for _, key := range order {
		out = append(out, status.AuthorityOf(key, pairs[key].implied, pairs[key].copies, now))
	}
	return out
}
