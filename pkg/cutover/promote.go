package cutover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/writers"
)

// unmoved looks at the last moment whether the old region has taken records since writers
// were fenced: whoever came back is found before anything is given up. That an end moved is
// not enough: the guard of the link to there takes epochs, and each is a control record.
func (r *run) unmoved(ctx context.Context) error {
	if r.ends == nil {
		return nil // a failover
	}
	if err := r.rulesStand(ctx); err != nil {
		return err
	}
	ends, _, err := sourceEnds(ctx, r.Old.Cluster, r.Forward.Topic)
	if err != nil {
		return err
	}
	written, err := recordsBehind(ctx, r.Old.Cluster, r.ends, ends)
	if err != nil {
		return err
	}
	if len(written) > 0 {
		return refused("stop whoever writes there, then run the command again", "%s was written to after its writers were fenced: %s", r.Old.Alias, first(written))
	}
	return nil
}

// rulesStand looks whether the rules that keep writers off are there still: somebody, or a
// command that lost its right in the middle of undoing, may have taken them away.
func (r *run) rulesStand(ctx context.Context) error {
	if r.Settings.Writers != "acl" {
		return nil
	}
	old, err := r.onOld(ctx)
	if err != nil {
		return err
	}
	plan, ok, err := standingFence(old.State())
	if err != nil {
		return err
	}
	if !ok {
		return refused("run the command again", "the rules that keep writers from %s were lifted by somebody else", r.Old.Alias)
	}
	drift, err := writers.Check(ctx, r.Old.Cluster, plan)
	switch {
	case err != nil:
		return err
	case len(drift.Missing) > 0:
		return refused("find out who changes ACLs there, then run the command again", "%d of %d rules that keep writers from %s are gone, the first: %s", len(drift.Missing), len(plan.Rules), r.Old.Alias, drift.Missing[0])
	case len(drift.New) > 0:
		return refused("find out who changes ACLs there, then run the command again", "somebody was given WRITE on %s meanwhile: %s would have to be kept off", r.Old.Alias, drift.New[0])
	}
	return nil
}

// promote writes the authority record, on the new region first. Resumed it finds it there,
// and sees to the old region's copy.
func (r *run) promote(ctx context.Context) (string, error) {
	var err error
	if !r.promoted {
		if err := r.unmoved(ctx); err != nil {
			return "", err
		}
		r.record.Since = time.Now().UTC()
		err = r.changer.Set(ctx, r.record)
	}
	if _, moved := errors.AsType[*authority.EpochError](err); err != nil && !moved && !isFenced(err) {
		err = r.afterFailedSet(ctx, err)
	}
	if err != nil {
		return "", err
	}
	r.promoted = true
	r.progress("promote", "the record stands on %s", r.New.Alias)
	if r.Old.Cluster != nil {
		if err := r.tellOld(ctx); err != nil {
			return "", err
		}
	}
	doc := r.copies(ctx)
	if err := r.event(ctx, evidence.KindAuthority, "promote", doc); err != nil {
		return "", err
	}
	var said, not []string
	for _, c := range doc.Copies {
		switch {
		case c.Reachable && c.Epoch == r.record.Epoch && c.Region == r.New.Alias:
			said = append(said, c.Cluster)
		case c.Cluster == r.New.Alias:
			return "", fmt.Errorf("read the record back from %s: it says epoch %d, region %q: %s", c.Cluster, c.Epoch, c.Region, c.Error)
		default:
			not = append(not, c.Cluster)
		}
	}
	proof := fmt.Sprintf("epoch %d, %s is authoritative, read back from %s", r.record.Epoch, r.New.Alias, strings.Join(said, " and "))
	if len(not) > 0 {
		proof += fmt.Sprintf("; %s does not know it yet", strings.Join(not, " and "))
	}
	return proof, nil
}

// afterFailedSet finds out whose record counts, before anything is undone. It returns nil if
// that of this run was written all the same.
func (r *run) afterFailedSet(ctx context.Context, err error) error {
	var now authority.State
	if _, unknown := errors.AsType[*authority.UnknownError](err); unknown {
		// Taking the right anew ends the transaction, one way or the other.
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		again, changeErr := authority.Change(asking, r.authorityOn(r.New))
		if changeErr != nil {
			r.promoted = true // it may be: nothing is undone
			return errors.Join(err, changeErr)
		}
		r.changer.Close()
		r.changer = again
		r.audit.changer = again
		now = again.State()
	} else if silent(ctx, r.New) == nil { // it was not written; writers wait to be let in again
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), oldTime)
		defer cancel()
		now, _ = authority.Read(asking, r.authorityOn(r.New))
	}
	switch current, _ := now.Current(); {
	case current.Run == r.id:
		return nil
	case current.Epoch >= r.record.Epoch: // the right was another command's in between
		return &authority.FencedError{Pair: r.Pair, Cluster: r.New.Alias, Err: fmt.Errorf("run %s made %s authoritative", current.Run, current.Region)}
	}
	return err
}

// tellOld brings the old region's copy up to date, within a time: writers have no region
// meanwhile. One that does not answer is told by the same command later; until then it is
// closed to the link back only.
func (r *run) tellOld(ctx context.Context) error {
	err := silent(ctx, r.Old)
	dead := err != nil
	if !dead {
		telling, cancel := context.WithTimeout(ctx, oldTime)
		_, err = r.copyAuthority(telling)
		cancel()
	}
	_, taken := errors.AsType[*authority.FencedError](err)
	_, split := errors.AsType[*authority.SplitError](err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil, r.req.Verb != Failover && (taken || split):
		return err
	case dead || r.req.Verb != Failover:
		r.forgo(err)
	}
	r.progress("promote", "%s does not know it yet: %v", r.Old.Alias, err)
	return nil
}

// copyAuthority brings the old region's copy up to date.
func (r *run) copyAuthority(ctx context.Context) (string, error) {
	old, err := r.onOld(ctx)
	if err != nil {
		return "", err
	}
	state, err := authority.Read(ctx, r.authorityOn(r.New))
	if err != nil {
		return "", err
	}
	if err := old.Copy(ctx, state.Records); err != nil {
		return "", err
	}
	current, _ := state.Current()
	return fmt.Sprintf("%s says epoch %d, %s is authoritative", r.Old.Alias, current.Epoch, current.Region), nil
}

// copies is what each region's copy of the authority says.
func (r *run) copies(ctx context.Context) evidence.AuthorityDoc {
	var doc evidence.AuthorityDoc
	for _, region := range []Region{r.Old, r.New} {
		c := evidence.AuthorityCopy{Cluster: region.Alias}
		err := region.Err
		if region.Cluster != nil {
			var s authority.State
			asking, cancel := context.WithTimeout(ctx, oldTime)
			s, err = authority.Read(asking, r.authorityOn(region))
			cancel()
			if err == nil {
				c.Reachable = true
				if rec, ok := s.Current(); ok {
					c.Epoch, c.Region, c.Since = rec.Epoch, rec.Region, &rec.Since
				}
			}
		}
		if err != nil {
			c.Error = err.Error()
		}
		doc.Copies = append(doc.Copies, c)
	}
	return doc
}

// onOld takes the exclusive right on the old region.
func (r *run) onOld(ctx context.Context) (*authority.Changer, error) {
	if r.Old.Cluster == nil {
		return nil, fmt.Errorf("region %s cannot be reached: %w", r.Old.Alias, r.Old.Err)
	}
	if r.old == nil {
		var err error
		if r.old, err = authority.Change(ctx, r.authorityOn(r.Old)); err != nil {
			return nil, err
		}
	}
	return r.old, nil
}
