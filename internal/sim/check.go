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

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/compare"
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
			d.events()
			return time.Since(began)
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

// place is what the headers on the target say of one record.
type place struct {
	writer   offsets.Writer
	sequence int64
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
	for _, tp := range w.plan.topics {
		if err := w.writer.remember(ctx, tp.name); err != nil {
			w.wrongf("read source %s: %v", tp.name, err)
			return
		}
		final, err := read(ctx, w.client(observerHost, sourceHosts), tp.name)
		if err != nil {
			w.wrongf("read source %s: %v", tp.name, err)
			return
		}
		copied, err := read(ctx, w.client(observerHost, targetHosts), tp.name)
		if err != nil {
			w.wrongf("read target %s: %v", tp.name, err)
			return
		}
		for p := range tp.partitions {
			lane := offsets.Lane{Topic: tp.name, Partition: p}
			places, batches, err := w.headers(ctx, lane)
			if err != nil {
				w.wrongf("read headers of target %v: %v", lane, err)
				continue
			}
			r.Records += len(final[p])
			r.Batches += batches
			state := journal.State(lane)
			r.Openings += len(state.Epochs())
			truths[lane] = w.checkRecords(lane, final[p], copied[p], places, state)
		}
	}
	w.witness.mu.Lock()
	defer w.witness.mu.Unlock()
	for _, text := range w.witness.wrong {
		w.wrongf("%s", text)
	}
	for c, n := range w.witness.claims {
		// A record that was sent and is not committed on the source is found by the
		// comparison, if it was appended at all.
		if source, ok := truths[c.lane][c.id]; ok && source != c.source {
			w.wrongf("%v: record %d has source offset %d; when writer %v sent it (%d times), the journal said %d", c.lane, c.id, source, c.writer, n, c.source)
		}
	}
}

// checkRecords walks over the target's records in their order. Each has to be
// the next one of the source; those that compaction has taken meanwhile may be
// there or not.
func (w *world) checkRecords(lane offsets.Lane, final, copied []*kgo.Record, places map[int64]place, state offsets.LaneState) map[int64]int64 {
	truth := map[int64]int64{}
	required := map[int64]bool{}
	for _, r := range final {
		required[r.Offset] = true
	}
	all := w.writer.compacted[lane]
	order := slices.Sorted(maps.Keys(all))
	next := 0
	wrong := 0
	for _, r := range copied {
		id, err := idOf(r.Value)
		if err != nil {
			w.wrongf("%v: target offset %d: %v", lane, r.Offset, err)
			return truth
		}
		from := next
		for next < len(order) && !equal(all[order[next]], r) && !required[order[next]] {
			next++
		}
		if next == len(order) || !equal(all[order[next]], r) {
			want := "no more"
			if from < len(order) {
				wanted, _ := idOf(all[order[from]].Value)
				want = fmt.Sprintf("record %d of source offset %d", wanted, order[from])
			}
			p := places[r.Offset]
			w.wrongf("%v: target offset %d holds record %d (writer %v, sequence %d), expected was %s", lane, r.Offset, id, p.writer, p.sequence, want)
			return truth
		}
		source := order[next]
		truth[id] = source
		next++
		p, ok := places[r.Offset]
		if !ok {
			w.wrongf("%v: target offset %d is in no batch", lane, r.Offset)
			return truth
		}
		if problem := translated(state, p, source, r.Offset); problem != "" {
			w.wrongf("%v: target offset %d holds source offset %d, writer %v, sequence %d; %s", lane, r.Offset, source, p.writer, p.sequence, problem)
			if wrong++; wrong > 3 {
				return truth
			}
		}
	}
	for ; next < len(order); next++ {
		if required[order[next]] {
			id, _ := idOf(all[order[next]].Value)
			w.wrongf("%v: record %d of source offset %d is missing on the target, which holds %d of %d", lane, id, order[next], len(copied), len(final))
			break
		}
	}
	return truth
}

// translated asks the journal about one record in every way there is.
func translated(state offsets.LaneState, p place, source, target int64) string {
	ordinal, got, ok := state.Resolve(p.writer, p.sequence)
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

func equal(a, b *kgo.Record) bool {
	if !bytes.Equal(a.Key, b.Key) || !bytes.Equal(a.Value, b.Value) || !a.Timestamp.Equal(b.Timestamp) || len(a.Headers) != len(b.Headers) {
		return false
	}
	for i := range a.Headers {
		if a.Headers[i].Key != b.Headers[i].Key || !bytes.Equal(a.Headers[i].Value, b.Headers[i].Value) {
			return false
		}
	}
	return true
}

// read returns the committed records of a topic by partition.
func read(ctx context.Context, c compare.Cluster, topic string) (map[int32][]*kgo.Record, error) {
	out := map[int32][]*kgo.Record{}
	return out, compare.Read(ctx, c, topic, func(r *kgo.Record) error {
		out[r.Partition] = append(out[r.Partition], r)
		return nil
	})
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

// headers reads the headers of a target partition's batches, control records
// included, and checks that at any place one writer appended: behind its own
// control record, and never after one of a later epoch.
func (w *world) headers(ctx context.Context, lane offsets.Lane) (places map[int64]place, batches int, err error) {
	client, err := kgo.NewClient(w.client(observerHost, targetHosts)...)
	if err != nil {
		return nil, 0, err
	}
	defer client.Close()
	places = map[int64]place{}
	end := w.target.PartitionInfo(lane.Topic, lane.Partition).HighWatermark
	newest := map[int64]int16{}
	for next := int64(0); next < end; {
		raw, err := fetch(ctx, client.Broker(int(w.target.LeaderFor(lane.Topic, lane.Partition))), lane, next)
		if err != nil {
			return nil, 0, err
		}
		before := next
		err = eachBatch(raw, func(b *kmsg.RecordBatch) error {
			next = b.FirstOffset + int64(b.LastOffsetDelta) + 1
			writer := offsets.Writer{ProducerID: b.ProducerID, Epoch: b.ProducerEpoch}
			epoch, known := newest[b.ProducerID]
			control := b.Attributes&0x20 != 0
			if known && b.ProducerEpoch < epoch || !control && (!known || epoch != b.ProducerEpoch) {
				w.wrongf("%v: target offset %d was written by %v when epoch %d (%v) had been fenced in", lane, b.FirstOffset, writer, epoch, known)
			}
			if control {
				newest[b.ProducerID] = b.ProducerEpoch
				return nil
			}
			batches++
			for i := range int64(b.NumRecords) {
				places[b.FirstOffset+i] = place{writer, int64(b.FirstSequence) + i}
			}
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
		if next == before {
			return nil, 0, fmt.Errorf("nothing at offset %d of %d", next, end)
		}
	}
	return places, batches, nil
}

func fetch(ctx context.Context, b *kgo.Broker, lane offsets.Lane, from int64) ([]byte, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 10, 1, 1<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic = lane.Topic
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = lane.Partition, from, 1<<20
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := b.RetriableRequest(ctx, byName{req})
	if err != nil {
		return nil, err
	}
	got := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if got.ErrorCode != 0 {
		return nil, fmt.Errorf("fetch: error code %d", got.ErrorCode)
	}
	return got.RecordBatches, nil
}

// byName is a fetch that names topics by their names.
type byName struct{ kmsg.Request }

func (byName) MaxVersion() int16 { return 11 }

// leaks complains about goroutines of the replicator that outlive its stop.
func (w *world) leaks() {
	time.Sleep(time.Second)
	synctest.Wait()
	buf := make([]byte, 4<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	_, bubble, ok := strings.Cut(strings.SplitN(stacks[0], "\n", 2)[0], "synctest bubble ")
	if !ok {
		return
	}
	bubble = "synctest bubble " + bubble
	for _, s := range stacks[1:] {
		head, body, _ := strings.Cut(s, "\n")
		if strings.Contains(head, bubble) && strings.Contains(body, "replicator/pkg/") {
			w.wrongf("a goroutine is left: %s", s)
		}
	}
}
