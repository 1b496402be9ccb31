package cutover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/stranded"
)

// Decision is what becomes of stranded records.
type Decision string

// Decisions. Empty: none taken, which is refused where there are any.
const (
	Export  Decision = evidence.StrandedExport  // into a file
	Replay  Decision = evidence.StrandedReplay  // appended to the authoritative region, marked by headers
	Discard Decision = evidence.StrandedDiscard // left where they are; groups of the new region never see them
)

// Decisions lists all of them.
func Decisions() []Decision { return []Decision{Export, Replay, Discard} }

// copiedBack is up to where the link back has copied to the old region, next, of the lanes that
// were prepared for it before and are to go on: the region was taken in under an earlier epoch,
// and nothing was copied from there since. What it copied is not stranded.
func (w *world) copiedBack(ctx context.Context, s Setup) (map[offsets.Lane]int64, error) {
	if s.Reverse == nil {
		return nil, nil //nolint:nilnil // there is none, and a gate says it
	}
	journal, err := s.openJournal(ctx, s.Old, *s.Reverse)
	if _, none := errors.AsType[*offsets.TopicError](err); none {
		return nil, nil //nolint:nilnil // that link has never copied
	}
	if err != nil {
		return nil, err
	}
	defer journal.Close()
	var lanes []offsets.Lane
	for _, l := range w.lanes {
		end, fenced := mirror.FenceEnd(l.tail.State)
		if _, prepared := mirror.PreparedFor(journal.State(l.lane), end); fenced && prepared && l.sourceEnd >= 0 {
			lanes = append(lanes, l.lane)
		}
	}
	if len(lanes) == 0 {
		return nil, nil //nolint:nilnil // the usual case
	}
	tails, err := offsets.ReadTails(ctx, s.Old.Cluster, journal, func(l offsets.Lane) string { return topic(l.Topic) }, lanes)
	if err != nil {
		return nil, err
	}
	out, since := map[offsets.Lane]int64{}, w.strandedSince(nil)
	for lane, tail := range tails {
		if tail.Err != nil {
			return nil, fmt.Errorf("find what link %s has copied of %s: %w", s.Reverse.Name, lane, tail.Err)
		}
		// Behind the last record it copied, whatever others have written there since.
		last, _ := tail.State.Last()
		at, _ := tail.State.Position()
		if p, ok := tail.State.At(max(last.Ordinal, at.Ordinal) - 1); ok && p.Target >= since[lane].From {
			out[lane] = p.Target + 1
		}
	}
	return out, nil
}

// strandedSince is where each lane of the closed link ended, or the link back did, if that was
// later. As long as nobody has fenced it, which a decision between two claims does not, that is
// what its daemon wrote last.
func (w *world) strandedSince(back map[offsets.Lane]int64) map[offsets.Lane]stranded.Since {
	out := map[offsets.Lane]stranded.Since{}
	for _, l := range w.lanes {
		since := stranded.Since{LeaderEpoch: -1}
		if e, ok := l.tail.State.Last(); ok {
			since.From, since.LeaderEpoch = e.Source, e.SourceLeaderEpoch
		}
		if p, ok := l.tail.State.Position(); ok && p.Source > since.From {
			since.From, since.LeaderEpoch = p.Source, p.SourceLeaderEpoch
		}
		if at, ok := back[l.lane]; ok {
			since.From, since.LeaderEpoch = at, -1
		}
		out[l.lane] = since
	}
	return out
}

// findStranded counts the records only the old region has.
func (w *world) findStranded(ctx context.Context, s Setup) (*evidence.StrandedDoc, error) {
	back, err := w.copiedBack(ctx, s)
	if err != nil {
		return nil, err
	}
	since := w.strandedSince(back)
	if _, err := withoutDeleted(ctx, s, since); err != nil {
		return nil, err
	}
	report, err := stranded.Find(ctx, s.Old.Cluster, since)
	if err != nil {
		return nil, err
	}
	return strandedDoc(report), nil
}

func strandedDoc(report stranded.Report) *evidence.StrandedDoc {
	doc := &evidence.StrandedDoc{}
	for _, r := range report.Ranges {
		if r.Records > 0 {
			doc.Rows = append(doc.Rows, evidence.StrandedRow{Topic: r.Topic, Partition: r.Partition, From: r.From, To: r.To, Records: r.Records, Bytes: &r.Bytes})
		}
	}
	return doc
}

// stranded: there is a decision where one is needed.
func (g *gates) stranded(req Request, doc *evidence.StrandedDoc) {
	const name = "stranded records"
	if doc == nil {
		return
	}
	var n int64
	for _, row := range doc.Rows {
		n += row.Records
	}
	switch {
	case n == 0:
		g.pass(name, "none")
	case req.Stranded == "":
		g.fail(name, "decide with --stranded export, replay or discard", "%d in %d partitions, and nobody has decided what becomes of them", n, len(doc.Rows))
	case req.Stranded == Export && req.ExportTo == "":
		g.fail(name, "name a file with --export-to", "they are to be exported, and no file is named")
	default:
		g.pass(name, "%d in %d partitions: %s", n, len(doc.Rows), req.Stranded)
	}
}

// takenIn tells whether the link to the old region is open: what appears there is what it
// copies, and nothing of it is stranded.
func takenIn(s Setup, old authority.State, epoch int64) bool {
	return epoch > 0 && old.Ready[authority.Direction(s.New.Alias, s.Old.Alias)].Epoch == epoch
}

// notTakenIn lets a failback that was killed when the link was open already pass by what comes before.
func (r *run) notTakenIn(ctx context.Context) error {
	old, err := r.onOld(ctx)
	if err == nil && takenIn(r.Setup, old.State(), r.record.Epoch) {
		err = skip("this run has done it: the link to %s is open", r.Old.Alias)
	}
	return err
}

// stranded deals with the records only the old region has.
func (r *run) stranded(ctx context.Context) (string, error) {
	if err := r.notTakenIn(ctx); err != nil {
		return "", err
	}
	if _, err := r.fence(ctx); err != nil { // the ends are final, whoever closed the link
		return "", err
	}
	if err := r.world.lookAtLanes(ctx, r.Setup); err != nil {
		return "", err
	}
	back, err := r.copiedBack(ctx)
	if err != nil {
		return "", err
	}
	since := r.world.strandedSince(back)
	deleted, err := withoutDeleted(ctx, r.Setup, since) // nothing of theirs can be told any more
	if err != nil {
		return "", err
	}
	report, err := stranded.Find(ctx, r.Old.Cluster, since)
	if err != nil {
		return "", err
	}
	r.strandedTo = map[offsets.Lane]int64{}
	for _, rg := range report.Ranges {
		r.strandedTo[rg.Lane] = rg.To
	}
	if report.Records == 0 && r.done["stranded"] { // what was counted then stands in the evidence
		return "", skip("this run has dealt with them already")
	}
	doc := strandedDoc(report)
	doc.Decision = string(r.req.Stranded)
	if err := r.event(ctx, evidence.KindStranded, "stranded", doc); err != nil {
		return "", err
	}
	if err := r.event(ctx, evidence.KindLoss, "stranded", actualLoss(report)); err != nil {
		return "", err
	}
	for _, rg := range report.Ranges {
		if rg.Cut != "" {
			return "", fmt.Errorf("%s: %s: what it held cannot be told from what was copied; take it in as an empty region instead", rg.Lane, rg.Cut)
		}
	}
	if report.Records == 0 { // or this run has noted all that it exported
		return cmp.Or(r.exportedTo(), "there are none") + r.leftOut(deleted), nil
	}
	opts := stranded.Options{Run: r.id, Log: r.Log, Progress: func(p stranded.Progress) {
		r.progress("stranded", "%d of %d records", p.Records, p.AllRecords)
	}}
	var proof, done string
	switch r.req.Stranded {
	case Export:
		if proof, err = r.export(ctx, report, opts); err != nil {
			return "", err
		}
		done = "exported"
	case Replay:
		result, err := stranded.Replay(ctx, r.Old.Cluster, r.New.Cluster, report, opts)
		if err != nil {
			return "", err
		}
		proof, done = fmt.Sprintf("%d records appended to %s, read back", result.Records, r.New.Alias), "replayed"
	case Discard:
		proof, done = fmt.Sprintf("%d records stay on %s alone, by decision of %s", report.Records, r.Old.Alias, r.req.By), "discarded"
	default:
		return "", refused("decide with --stranded export, replay or discard", "%d records are stranded, and nobody has decided what becomes of them", report.Records)
	}
	return proof + r.leftOut(deleted), r.noteStranded(ctx, report, back, done)
}

// copiedBack is that of the world, when it is final: the daemon of the link back has read by now
// that it is closed, or finds that its epochs are taken.
func (r *run) copiedBack(ctx context.Context) (map[offsets.Lane]int64, error) {
	back, err := r.world.copiedBack(ctx, r.Setup)
	if err != nil || len(back) == 0 {
		return nil, err
	}
	if _, err := mirror.Fence(ctx, mirror.FenceConfig{
		Options: r.Reverse.Options, Target: r.Old.Cluster, Log: r.Log, Instance: fmt.Sprintf("%s by %s", r.id, r.req.By),
		Progress: func(done, total int) {
			r.progress("stranded", "%d of %d lanes of link %s are closed", done, total, r.Reverse.Name)
		},
	}); err != nil {
		return nil, err
	}
	return r.world.copiedBack(ctx, r.Setup)
}

// nothingSince looks whether the region that returned has taken records since those only it
// has were counted. Where the link back goes on is behind them by now, so that nobody would
// ever hear of them; as long as it is not open, the next command counts them.
func (r *run) nothingSince(ctx context.Context) error {
	if r.strandedTo == nil {
		return nil // no failback, or the link was open already
	}
	ends, _, err := sourceEnds(ctx, r.Old.Cluster, r.Forward.Topic)
	if err != nil {
		return err
	}
	written, err := recordsBehind(ctx, r.Old.Cluster, r.strandedTo, ends)
	if err == nil && len(written) > 0 {
		err = refused("stop whoever writes there, then run the command again: it deals with these records, too",
			"%s was written to after its stranded records were counted: %s", r.Old.Alias, first(written))
	}
	return err
}

// noteStranded writes to the closed link's journal that these offsets were never copied,
// so that translation says so for ever.
func (r *run) noteStranded(ctx context.Context, report stranded.Report, back map[offsets.Lane]int64, done string) error {
	journal, err := offsets.OpenJournal(ctx, offsets.JournalConfig{
		Client: r.New.Cluster.NewClient, Admin: r.New.Cluster.Admin(), Topic: r.Forward.Options.JournalTopic, Log: r.Log,
	})
	if err != nil {
		return err
	}
	defer journal.Close()
	for i, rg := range report.Ranges {
		// Of a lane that was never opened nothing was copied, and no offset is translated.
		if _, opened := journal.State(rg.Lane).Last(); rg.Records == 0 || !opened {
			continue
		}
		var entries []offsets.Entry
		if _, copied := back[rg.Lane]; copied {
			entries, err = journal.State(rg.Lane).StrandBehind(rg.From, rg.To, done, time.Now())
		} else {
			entries, err = journal.State(rg.Lane).Strand(rg.To, done, time.Now())
		}
		if err != nil {
			return fmt.Errorf("lane %s: %w", rg.Lane, err)
		}
		written := make(chan error, 1)
		journal.Append(func(err error) { written <- err }, entries...)
		if err := <-written; err != nil {
			return fmt.Errorf("note stranded records of %s: %w", rg.Lane, err)
		}
		r.progress("stranded", "%s, the %d. of %d partitions, is noted", rg.Lane, i+1, len(report.Ranges))
	}
	return nil
}

// actualLoss counts what the old region had taken and the new one never saw.
func actualLoss(report stranded.Report) evidence.LossDoc {
	doc := evidence.LossDoc{Actual: true, Basis: "counted in the logs of " + report.From}
	byTopic := map[string]*evidence.LossRow{}
	var names []string
	for _, rg := range report.Ranges {
		row := byTopic[rg.Topic]
		if row == nil {
			row = &evidence.LossRow{Topic: rg.Topic, Bytes: new(int64)}
			byTopic[rg.Topic] = row
			names = append(names, rg.Topic)
		}
		row.Records += rg.Records
		*row.Bytes += rg.Bytes
		if rg.Records > 0 {
			secs := rg.Last.Sub(rg.First).Seconds()
			if row.Seconds == nil || *row.Seconds < secs {
				row.Seconds = &secs
			}
		}
	}
	for _, name := range names {
		doc.Rows = append(doc.Rows, *byTopic[name])
	}
	return doc
}
