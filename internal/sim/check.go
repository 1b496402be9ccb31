package sim

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
)

// catchUpTime is the fake time one daemon has to copy what is left when the
// faults are over: a session that times out, a rebalance, a request that times
// out, an opening that does, and the lease of a predecessor.
const catchUpTime = 90 * time.Second

// settle leaves one daemon running and waits until it has copied everything.
func (w *world) settle() time.Duration {
	began := time.Now()
	if w.daemons[0] == nil {
		w.start(0)
	}
	for slot := 1; slot < len(w.daemons); slot++ {
		w.stop(slot)
	}
	d := w.daemons[0]
	for {
		s := d.status()
		why := w.behind(s)
		if why == "" {
			d.events()
			return time.Since(began)
		}
		if time.Since(began) > catchUpTime {
			w.wrongf("%s has not caught up after %v: %s", d.name, time.Since(began), why)
			if s != nil {
				for _, ln := range s.Lanes {
					w.tellf("%+v", ln)
				}
				w.tellf("link %s, %s; errors %v", s.State, s.Reason, s.Errors)
			}
			if g := w.source.GroupInfo(d.group); g != nil {
				w.tellf("group %+v", *g)
			}
			d.events()
			return time.Since(began)
		}
		if int(time.Since(began).Seconds())%15 == 14 {
			w.bury(d.group)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// behind says what is missing until everything is copied, "" nothing.
func (w *world) behind(s *mirror.LinkStatus) string {
	if s == nil {
		return "the link does not answer"
	}
	at := map[offsets.Lane]mirror.LaneStatus{}
	for _, ln := range s.Lanes {
		at[offsets.Lane{Topic: ln.Topic, Partition: ln.Partition}] = ln
	}
	for _, lane := range w.lanes() {
		ln, ok := at[lane]
		end := w.source.PartitionInfo(lane.Topic, lane.Partition).HighWatermark
		switch {
		case !ok:
			return fmt.Sprintf("%v has no lane", lane)
		case ln.State != mirror.LaneCopying:
			return fmt.Sprintf("%v is %s: %s", lane, ln.State, ln.Reason)
		case ln.Position < end:
			return fmt.Sprintf("%v is at %d of %d", lane, ln.Position, end)
		}
	}
	if !s.Ready {
		return "the link is not ready: " + s.Reason
	}
	return ""
}

// check compares the target with the source, and what the journal says of it.
func (w *world) check(r *Result) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	journal, done, err := w.journal(ctx)
	if err != nil {
		w.wrongf("%v", err)
		return
	}
	defer done()
	truths := map[offsets.Lane]map[int64]int64{} // id to source offset
	for _, lane := range w.lanes() {
		final, err := w.writer.remember(ctx, lane)
		if err != nil {
			w.wrongf("%v", err)
			continue
		}
		log, err := w.readLog(ctx, w.target, targetHosts, lane)
		if err != nil {
			w.wrongf("read target %v: %v", lane, err)
			continue
		}
		w.checkWriters(lane, log)
		copied, err := committed(log)
		if err != nil {
			w.wrongf("read target %v: %v", lane, err)
			continue
		}
		state := journal.State(lane)
		truths[lane] = w.checkRecords(lane, final, copied, state)
		r.Records += len(final)
		r.Batches += len(log)
		r.Openings += len(state.Epochs())
	}
	w.witness.mu.Lock()
	defer w.witness.mu.Unlock()
	for _, text := range w.witness.wrong {
		w.wrongf("%s", text)
	}
	for c, n := range w.witness.claims {
		// A record that was sent and never appended is nobody's loss.
		if source, ok := truths[c.lane][c.id]; ok && source != c.source {
			w.wrongf("%v: record %d has source offset %d; when writer %v sent it (%d times), the journal said %d", c.lane, c.id, source, c.writer, n, c.source)
		}
	}
}

// checkRecords walks over the target's records in their order. Each has to be
// the next one of the source; those that compaction has taken meanwhile may be
// there or not.
func (w *world) checkRecords(lane offsets.Lane, final, copied []record, state offsets.LaneState) map[int64]int64 {
	truth := map[int64]int64{}
	required := map[int64]bool{}
	for _, r := range final {
		required[r.offset] = true
	}
	all := w.writer.compacted[lane]
	order := slices.Sorted(maps.Keys(all))
	start := w.source.PartitionInfo(lane.Topic, lane.Partition).LogStartOffset
	next, wrong := 0, 0
	for _, r := range copied {
		id, err := idOf(r.value)
		if err != nil {
			w.wrongf("%v: target offset %d: %v", lane, r.offset, err)
			return truth
		}
		from := next
		for next < len(order) && !equal(all[order[next]], r) && !required[order[next]] {
			next++
		}
		if next == len(order) || !equal(all[order[next]], r) {
			want := "no more"
			if from < len(order) {
				wanted, _ := idOf(all[order[from]].value)
				want = fmt.Sprintf("record %d of source offset %d", wanted, order[from])
			}
			w.wrongf("%v: target offset %d holds record %d (writer %v, sequence %d, timestamp %v), expected was %s; %s",
				lane, r.offset, id, r.writer, r.sequence, time.UnixMilli(r.timestamp).Sub(w.began), want, w.fate(lane, id, copied))
			return truth
		}
		source := order[next]
		truth[id] = source
		next++
		// What retention has taken from the source need not be translated any more.
		if problem := translated(state, r, source); problem != "" && source >= start {
			w.wrongf("%v: target offset %d holds source offset %d, writer %v, sequence %d; %s", lane, r.offset, source, r.writer, r.sequence, problem)
			if wrong++; wrong > 3 {
				return truth
			}
		}
	}
	for ; next < len(order); next++ {
		if required[order[next]] {
			id, _ := idOf(all[order[next]].value)
			w.wrongf("%v: record %d of source offset %d is missing on the target, which holds %d of %d", lane, id, order[next], len(copied), len(final))
			break
		}
	}
	return truth
}

// fate tells where a record is on the source, what became of it there, and how
// often it is on the target.
func (w *world) fate(lane offsets.Lane, id int64, copied []record) string {
	found := "it is not on the source"
	log, err := w.readLog(context.Background(), w.source, sourceHosts, lane)
	for i := range log {
		records, _ := decode(&log[i])
		for _, r := range records {
			if got, err := idOf(r.value); err == nil && got == id && !control(&log[i]) {
				found = fmt.Sprintf("on the source it has offset %d, batch at %d of writer %v, transactional %v", r.offset, log[i].FirstOffset, r.writer, transactional(&log[i]))
			}
		}
	}
	for i := range log {
		if control(&log[i]) {
			records, _ := decode(&log[i])
			found += fmt.Sprintf("; marker at %d of %d: %v", log[i].FirstOffset, log[i].ProducerID, records[0].key)
		}
	}
	if err != nil {
		found += ": " + err.Error()
	}
	found += "; on the target at"
	for _, r := range copied {
		if got, err := idOf(r.value); err == nil && got == id {
			found += fmt.Sprintf(" %d", r.offset)
		}
	}
	return found
}

// translated asks the journal about one record in every way there is.
func translated(state offsets.LaneState, r record, source int64) string {
	target := r.offset
	ordinal, got, ok := state.Resolve(r.writer, r.sequence)
	if !ok || got != source {
		return fmt.Sprintf("the journal resolves it to %d (%v)", got, ok)
	}
	if pt, ok := state.SourceOf(target); !ok || pt != (offsets.Point{Ordinal: ordinal, Source: source, Target: target}) {
		return fmt.Sprintf("SourceOf gives %+v (%v)", pt, ok)
	}
	if pt, ok := state.TargetOf(source); !ok || pt != (offsets.Point{Ordinal: ordinal, Source: source, Target: target}) {
		return fmt.Sprintf("TargetOf gives %+v (%v)", pt, ok)
	}
	return ""
}

func equal(a, b record) bool {
	return a.timestamp == b.timestamp && bytes.Equal(a.key, b.key) && bytes.Equal(a.value, b.value) &&
		slices.EqualFunc(a.headers, b.headers, func(x, y kmsg.Header) bool { return x.Key == y.Key && bytes.Equal(x.Value, y.Value) })
}

// journal opens the target's journal as a stranger would.
func (w *world) journal(ctx context.Context) (*offsets.Journal, func(), error) {
	cfg := cluster.DefaultConfig()
	for _, h := range targetHosts {
		cfg.BootstrapServers = append(cfg.BootstrapServers, h+":9092")
	}
	c, err := cluster.Open(ctx, "west", cfg, cluster.Options{Dial: w.net.Dialer(observerHost)})
	if err != nil {
		return nil, nil, err
	}
	j, err := offsets.OpenJournal(ctx, offsets.JournalConfig{Client: c.NewClient, Admin: c.Admin(), Topic: journalTopic})
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return j, func() { j.Close(); c.Close() }, nil
}

// checkWriters checks that at any place of a target's log one writer appended:
// behind its own control record, and never after one of a later epoch.
func (w *world) checkWriters(lane offsets.Lane, log []kmsg.RecordBatch) {
	newest := map[int64]int16{}
	for i := range log {
		b := &log[i]
		epoch, known := newest[b.ProducerID]
		if known && b.ProducerEpoch < epoch || !control(b) && (!known || epoch != b.ProducerEpoch) {
			w.wrongf("%v: target offset %d was written by epoch %d of producer id %d when %d was the one fenced in (%v)", lane, b.FirstOffset, b.ProducerEpoch, b.ProducerID, epoch, known)
		}
		if control(b) {
			newest[b.ProducerID] = b.ProducerEpoch
		}
	}
}

// leaks complains about goroutines of the replicator that outlive its stop.
func (w *world) leaks() {
	time.Sleep(time.Second)
	synctest.Wait()
	for _, s := range goroutines("replicator/pkg/") {
		w.wrongf("a goroutine is left: %s", s)
	}
}

// goroutines returns the stacks of this bubble's other goroutines that have a text in them.
func goroutines(text string) (found []string) {
	buf := make([]byte, 8<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	_, bubble, ok := strings.Cut(strings.SplitN(stacks[0], "\n", 2)[0], "synctest bubble ")
	for _, s := range stacks[1:] {
		head, body, _ := strings.Cut(s, "\n")
		if ok && strings.Contains(head, "synctest bubble "+bubble) && strings.Contains(body, text) {
			found = append(found, s)
		}
	}
	return found
}
