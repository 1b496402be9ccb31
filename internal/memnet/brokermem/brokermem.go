// Package brokermem makes the partitions of a kfake cluster remember
// transactional producers as Kafka's do, for producer ids that write to one
// partition each with plain batches:
//   - a partition refuses an older epoch from the control record on, not from InitProducerId on;
//   - between AddPartitionsToTxn and EndTxn plain batches are taken;
//   - a producer is forgotten once the newest timestamp of its last batch is older than the expiration, at the next
//     check or at once at a restart; a forgotten producer is taken at any epoch and sequence. A control record counts
//     with the time of its writing.
//
// kfake offers no way to do this, so the package reaches into its private
// state: in a control function, while kfake's own goroutine waits. Install
// fails if that state no longer looks as expected. For tests only.
package brokermem

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Options are the broker's settings.
type Options struct {
	Expiration time.Duration // producer.id.expiration.ms, default a day
	Check      time.Duration // producer.id.expiration.check.interval.ms, default 10 minutes
}

// Memory is what the partitions remember.
type Memory struct {
	mu      sync.Mutex
	cfg     Options
	start   time.Time
	known   map[key]entry
	forgets int
	after   func() // undoes and notes what the request before has left
	kfake   internals

	restarted time.Time // zero: no restart since the last request
}

type key struct {
	topic     string
	partition int32
	producer  int64
}

type entry struct {
	epoch   int16
	newest  time.Time // newest timestamp of the last batch
	written time.Time
}

// Install lays the memory over a cluster. The partitions know no producer to begin with.
func Install(c *kfake.Cluster, o Options) (*Memory, error) {
	if o.Expiration == 0 {
		o.Expiration = 24 * time.Hour
	}
	if o.Check == 0 {
		o.Check = 10 * time.Minute
	}
	in, err := reach(c)
	if err != nil {
		return nil, err
	}
	m := &Memory{cfg: o, start: time.Now(), known: map[key]entry{}, kfake: in}
	c.Control(m.before)
	return m, nil
}

// Restart is what a restart of every broker does to the memory: whatever is
// too old now is gone before the next request. The connections are the test's to cut.
func (m *Memory) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restarted = time.Now()
}

// Known tells which epoch the partition remembers of a producer id. No request
// may be under way: call synctest.Wait before.
func (m *Memory) Known(topic string, partition int32, producer int64) (epoch int16, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle()
	m.afterRestart()
	k := key{topic, partition, producer}
	m.expire(k)
	e, ok := m.known[k]
	return e.epoch, ok
}

// Forgets counts the producers forgotten so far, as far as requests have shown it.
func (m *Memory) Forgets() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.forgets
}

// before runs ahead of every request and leaves it to kfake.
func (m *Memory) before(req kmsg.Request) (kmsg.Response, error, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle()
	m.afterRestart()
	switch r := req.(type) {
	case *kmsg.ProduceRequest:
		for i := range r.Topics {
			topic := m.Topic(&r.Topics[i])
			for k := range r.Topics[i].Partitions {
				p := &r.Topics[i].Partitions[k]
				m.produce(topic, p.Partition, p.Records)
			}
		}
	case *kmsg.EndTxnRequest:
		m.control(m.kfake.producer(r.ProducerID))
	case *kmsg.InitProducerIDRequest:
		if r.TransactionalID != nil {
			m.control(m.kfake.transactional(*r.TransactionalID))
		}
	}
	return nil, nil, false
}

// Topic is the name of a topic in a produce request, which from version 13 on
// has its id only; "" if there is none. Only for control functions.
func (m *Memory) Topic(t *kmsg.ProduceRequestTopic) string {
	if t.Topic != "" {
		return t.Topic
	}
	if v := m.kfake.topics.MapIndex(reflect.ValueOf(t.TopicID).Convert(m.kfake.topics.Type().Key())); v.IsValid() {
		return v.String()
	}
	return ""
}

func (m *Memory) settle() {
	if m.after != nil {
		m.after()
		m.after = nil
	}
}

func (m *Memory) then(f func()) {
	if before := m.after; before != nil {
		m.after = func() { before(); f() }
		return
	}
	m.after = f
}

// produce shows kfake the partition's view of the producer, for this request only.
func (m *Memory) produce(topic string, partition int32, batch []byte) {
	if len(batch) < 61 || batch[16] != 2 {
		return
	}
	id := int64(binary.BigEndian.Uint64(batch[43:]))
	epoch := int16(binary.BigEndian.Uint16(batch[51:]))
	p := m.kfake.producer(id)
	if p == nil || *p.txnID() == "" || batch[22]&0x10 != 0 {
		return
	}
	k := key{topic, partition, id}
	m.expire(k)
	w := p.window(topic, partition)
	if e, ok := m.known[k]; ok {
		epoch = e.epoch
	} else if w != nil {
		*w.seen() = false
	}
	coordinatorEpoch, inTxn := *p.epoch(), *p.inTxn()
	*p.epoch(), *p.inTxn() = epoch, false
	var had bool
	var hadEpoch int16
	var hadNext int32
	if w != nil {
		had, hadEpoch, hadNext = *w.seen(), *w.epoch(), *w.next()
	}
	m.then(func() {
		*p.epoch(), *p.inTxn() = coordinatorEpoch, inTxn
		w := p.window(topic, partition)
		if w == nil || !*w.seen() || had && *w.epoch() == hadEpoch && *w.next() == hadNext {
			return // refused, or a duplicate, which refreshes nothing
		}
		newest := time.UnixMilli(int64(binary.BigEndian.Uint64(batch[35:])))
		m.known[k] = entry{epoch: *w.epoch(), newest: newest, written: time.Now()}
	})
}

// control notes the control records that ending a producer's transaction writes.
func (m *Memory) control(p *producer) {
	if p == nil || !*p.inTxn() {
		return
	}
	id, epoch, parts := *p.id(), *p.epoch(), p.partitions()
	m.then(func() {
		if *p.inTxn() {
			return
		}
		for _, k := range parts {
			k.producer = id
			m.known[k] = entry{epoch: epoch, newest: time.Now(), written: time.Now()}
		}
	})
}

// expire forgets the producer if a check since its last batch has found it too old.
func (m *Memory) expire(k key) {
	e, ok := m.known[k]
	if !ok {
		return
	}
	check := m.start.Add(time.Since(m.start).Truncate(m.cfg.Check))
	if e.written.Before(check) && check.Sub(e.newest) >= m.cfg.Expiration {
		m.forget(k)
	}
}

func (m *Memory) afterRestart() {
	if m.restarted.IsZero() {
		return
	}
	for k, e := range m.known {
		if m.restarted.Sub(e.newest) >= m.cfg.Expiration {
			m.forget(k)
		}
	}
	m.restarted = time.Time{}
}

func (m *Memory) forget(k key) {
	delete(m.known, k)
	m.forgets++
}

// internals finds kfake's private state.
type internals struct {
	ids, byTxnID, topics reflect.Value
	producers, windowing layout
}

type layout map[string]reflect.StructField

// reach checks that kfake's state has the fields and types used here.
func reach(c *kfake.Cluster) (internals, error) {
	var in internals
	pids := reflect.ValueOf(c).Elem().FieldByName("pids")
	if !pids.IsValid() || pids.Kind() != reflect.Struct {
		return in, fmt.Errorf("reach into kfake: no pids in the cluster")
	}
	if data := reflect.ValueOf(c).Elem().FieldByName("data"); data.IsValid() && data.Kind() == reflect.Struct {
		in.topics = data.FieldByName("id2t")
	}
	if !in.topics.IsValid() || in.topics.Kind() != reflect.Map || in.topics.Type().Elem().Kind() != reflect.String || !reflect.TypeFor[[16]byte]().ConvertibleTo(in.topics.Type().Key()) {
		return in, fmt.Errorf("reach into kfake: no map of topic ids")
	}
	in.ids, in.byTxnID = pids.FieldByName("ids"), pids.FieldByName("byTxid")
	for _, v := range []reflect.Value{in.ids, in.byTxnID} {
		if !v.IsValid() || v.Kind() != reflect.Map || v.Type().Elem().Kind() != reflect.Pointer {
			return in, fmt.Errorf("reach into kfake: no map of producers")
		}
	}
	var err error
	in.producers, err = layOut(in.ids.Type().Elem().Elem(), map[string]reflect.Kind{
		"id": reflect.Int64, "epoch": reflect.Int16, "txid": reflect.String, "inTx": reflect.Bool, "windows": reflect.Map, "txParts": reflect.Map})
	if err != nil {
		return in, err
	}
	windows := in.producers["windows"].Type
	if windows.Elem().Kind() != reflect.Map || windows.Elem().Elem().Kind() != reflect.Pointer {
		return in, fmt.Errorf("reach into kfake: windows are %v", windows)
	}
	in.windowing, err = layOut(windows.Elem().Elem().Elem(), map[string]reflect.Kind{"seen": reflect.Bool, "epoch": reflect.Int16, "nextSeq": reflect.Int32})
	return in, err
}

func layOut(t reflect.Type, fields map[string]reflect.Kind) (layout, error) {
	l := layout{}
	for name, kind := range fields {
		f, ok := t.FieldByName(name)
		if !ok || f.Type.Kind() != kind {
			return nil, fmt.Errorf("reach into kfake: %v has no field %s of kind %v", t, name, kind)
		}
		l[name] = f
	}
	return l, nil
}

func (in *internals) producer(id int64) *producer {
	return in.wrap(in.ids.MapIndex(reflect.ValueOf(id)))
}

func (in *internals) transactional(txnID string) *producer {
	return in.wrap(in.byTxnID.MapIndex(reflect.ValueOf(txnID)))
}

func (in *internals) wrap(v reflect.Value) *producer {
	if !v.IsValid() || v.IsNil() {
		return nil
	}
	return &producer{in: in, at: v.UnsafePointer()}
}

// producer is kfake's state of a producer id.
type producer struct {
	in *internals
	at unsafe.Pointer
}

func (p *producer) field(name string) unsafe.Pointer {
	return unsafe.Add(p.at, p.in.producers[name].Offset)
}
func (p *producer) id() *int64     { return (*int64)(p.field("id")) }
func (p *producer) epoch() *int16  { return (*int16)(p.field("epoch")) }
func (p *producer) txnID() *string { return (*string)(p.field("txid")) }
func (p *producer) inTxn() *bool   { return (*bool)(p.field("inTx")) }

func (p *producer) partitions() []key {
	var all []key
	parts := reflect.NewAt(p.in.producers["txParts"].Type, p.field("txParts")).Elem()
	for t := parts.MapRange(); t.Next(); {
		for i := t.Value().MapRange(); i.Next(); {
			all = append(all, key{topic: t.Key().String(), partition: int32(i.Key().Int())})
		}
	}
	return all
}

// window is kfake's memory of one producer's sequence in one partition.
type window struct {
	in *internals
	at unsafe.Pointer
}

func (p *producer) window(topic string, partition int32) *window {
	byTopic := reflect.NewAt(p.in.producers["windows"].Type, p.field("windows")).Elem().MapIndex(reflect.ValueOf(topic))
	if !byTopic.IsValid() || byTopic.IsNil() {
		return nil
	}
	w := byTopic.MapIndex(reflect.ValueOf(partition))
	if !w.IsValid() || w.IsNil() {
		return nil
	}
	return &window{in: p.in, at: w.UnsafePointer()}
}

func (w *window) field(name string) unsafe.Pointer {
	return unsafe.Add(w.at, w.in.windowing[name].Offset)
}
func (w *window) seen() *bool   { return (*bool)(w.field("seen")) }
func (w *window) epoch() *int16 { return (*int16)(w.field("epoch")) }
func (w *window) next() *int32  { return (*int32)(w.field("nextSeq")) }
