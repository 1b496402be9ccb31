package offsets

// SpanBuilder follows a lane's position on the writer's side and collects the spans that must be
// journalled before a chunk is sent.
type SpanBuilder struct {
	lane    Lane
	writer  Writer
	ordinal int64
	source  int64
	runs    []Span
}

// NewSpanBuilder starts at an opening: ordinal and source are the epoch record's, which stands
// for the first span.
func NewSpanBuilder(lane Lane, w Writer, ordinal, source int64) *SpanBuilder {
	return &SpanBuilder{lane: lane, writer: w, ordinal: ordinal, source: source}
}

// Add notes count records with consecutive source offsets from source on. It reports whether a
// new span begins with them. Source offsets only grow: who goes back opens the lane again.
func (b *SpanBuilder) Add(source int64, count int) (begins bool) {
	if count <= 0 {
		return false
	}
	if source != b.source {
		b.runs = append(b.runs, Span{Ordinal: b.ordinal, Source: source})
		begins = true
	}
	b.ordinal += int64(count)
	b.source = source + int64(count)
	return begins
}

// Take returns the spans noted since the last Take, as one entry; false when there are none, as
// in a dense run.
func (b *SpanBuilder) Take() (Spans, bool) {
	if len(b.runs) == 0 {
		return Spans{}, false
	}
	runs := b.runs
	b.runs = nil
	return Spans{Lane: b.lane, Writer: b.writer, Runs: runs}, true
}

// Ordinal returns the next ordinal.
func (b *SpanBuilder) Ordinal() int64 { return b.ordinal }

// Source returns the next source offset of the current span.
func (b *SpanBuilder) Source() int64 { return b.source }
