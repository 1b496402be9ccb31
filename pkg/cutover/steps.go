package cutover

import (
	"context"
	"errors"
	"fmt"

	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
)

// found is what steps of a run find out for those behind them.
type found struct {
	ends   map[offsets.Lane]int64 // where the old region's partitions end, next, since writers are fenced
	fenced *fencedLink
	// strandedTo is up to where the records of the region that returned are dealt with, next.
	strandedTo map[offsets.Lane]int64
}

// stepsOf are a verb's steps in their order. OLD and NEW stand for the regions.
func stepsOf(v Verb) []step {
	gates := step{name: "gates", what: "look at everything that must hold, again",
		do: func(ctx context.Context, r *run) (string, error) { return r.gates(ctx) }}
	switch v {
	case Failover:
		return []step{gates, promoteStep(), fenceStep(), openStep(), groupsStep()}
	case Failback:
		return []step{gates,
			{name: "authority", what: "bring the authority record of OLD up to date: NEW is authoritative", do: func(ctx context.Context, r *run) (string, error) { return r.copyAuthority(ctx) }},
			returnedStep(),
			strandedStep(),
			reverseStep("prepare the link NEW->OLD: it copies only what OLD lacks"),
		}
	}
	return []step{gates,
		writersStep("keep applications from writing to OLD; its ends, read twice, must stand still"),
		{name: "drain", what: "wait until every lane has come to its source's end", watched: true, do: func(ctx context.Context, r *run) (string, error) { return r.drain(ctx) }},
		{name: "verify", what: "compare the last records of each partition on both sides", watched: true, do: func(ctx context.Context, r *run) (string, error) { return r.verify(ctx) }},
		promoteStep(), fenceStep(), openStep(), groupsStep(),
		reverseStep("prepare the link NEW->OLD: it copies what is written to NEW from now on"),
	}
}

func promoteStep() step {
	return step{name: "promote", what: "write the authority record: NEW is authoritative, on NEW first, then on OLD if it answers", point: true,
		do: func(ctx context.Context, r *run) (string, error) { return r.promote(ctx) }}
}

func fenceStep() step {
	return step{name: "fence-link", what: "take the epoch of every lane OLD->NEW, prove that its former writer is refused",
		do: func(ctx context.Context, r *run) (string, error) { return r.fenceLink(ctx) }}
}

func openStep() step {
	return step{name: "open-writers", what: "let applications write to NEW",
		do: func(ctx context.Context, r *run) (string, error) { return r.openWriters(ctx) }}
}

func groupsStep() step {
	// Once: groups that are at work on NEW cannot be placed again, and need not be.
	return step{name: "groups", what: "translate the groups' offsets, commit them on NEW, read them back", once: true,
		do: func(ctx context.Context, r *run) (string, error) { return r.placeGroups(ctx) }}
}

func writersStep(what string) step {
	return step{name: "fence-writers", what: what, watched: true,
		do:   func(ctx context.Context, r *run) (string, error) { return r.fenceWriters(ctx) },
		undo: func(ctx context.Context, r *run) (string, error) { return r.unfenceWriters(ctx) },
	}
}

// returnedStep has a name of its own: hooks around fence-writers stop applications, which
// have long gone on in the other region.
func returnedStep() step {
	s := writersStep("keep applications from writing to OLD, prove that nobody does")
	s.name, s.watched = "fence-returned", false // no writer waits for it
	return s
}

func reverseStep(what string) step {
	return step{name: "reverse", what: what, do: func(ctx context.Context, r *run) (string, error) { return r.reverse(ctx) }}
}

func strandedStep() step {
	return step{name: "stranded", what: "deal with the records only OLD has, as decided",
		do: func(ctx context.Context, r *run) (string, error) { return r.stranded(ctx) }}
}

// gates looks at the world anew: it may have moved on while somebody read the plan.
func (r *run) gates(ctx context.Context) (string, error) {
	if r.req.Verb == Failover && r.Old.Cluster != nil { // it may have died since
		r.Old = r.oldOrNot(ctx)
	}
	w, err := look(ctx, r.Setup, r.req)
	if err != nil {
		return "", err
	}
	r.world.close()
	r.world = w
	p := &Plan{world: w, PlanDoc: evidence.PlanDoc{Epoch: r.record.Epoch - 1}}
	if r.req.Verb == Failback {
		p.Epoch = r.record.Epoch
	}
	if r.resumed {
		p.Resumes = r.id
	}
	if err := p.judge(ctx, r.Setup, r.req); err != nil {
		return "", err
	}
	if off, err := r.clockGate(ctx); err != nil {
		return "", err
	} else if off != nil {
		p.Gates = append(p.Gates, *off)
	}
	docs := []error{r.event(ctx, evidence.KindGates, "gates", p.Gates), r.event(ctx, evidence.KindAuthority, "gates", r.copies(ctx)), r.lanesEvent(ctx, "gates")}
	if p.Loss != nil {
		docs = append(docs, r.event(ctx, evidence.KindLoss, "gates", p.Loss))
	}
	if err := errors.Join(docs...); err != nil {
		return "", err
	}
	if err := p.Refused(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d of %d passed", len(p.Gates), len(p.Gates)), nil
}

// lanesEvent keeps how far each lane has come.
func (r *run) lanesEvent(ctx context.Context, step string) error {
	rows := r.world.laneRows()
	if r.req.rehearsal {
		rows = shortened(rows, behind)
	}
	return r.event(ctx, evidence.KindLanes, step, rows)
}
