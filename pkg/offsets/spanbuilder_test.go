package offsets

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestADenseRunNeedsNoSpan(t *testing.T) {
	b := NewSpanBuilder(someLane, someWriter, 10, 100)
	for source := int64(100); source < 1000; source += 9 {
		if b.Add(source, 9) {
			t.Fatalf("a span begins at source offset %d", source)
		}
	}
	if s, ok := b.Take(); ok {
		t.Fatalf("spans to journal: %v", s)
	}
	if b.Ordinal() != 910 || b.Source() != 1000 {
		t.Fatalf("next is ordinal %d, source offset %d", b.Ordinal(), b.Source())
	}
}

func TestEachHoleBeginsASpan(t *testing.T) {
	b := NewSpanBuilder(someLane, someWriter, 10, 100)
	begins := []bool{b.Add(101, 2), b.Add(103, 1), b.Add(103, 0), b.Add(110, 5)}
	if diff := cmp.Diff([]bool{true, false, false, true}, begins); diff != "" {
		t.Error(diff)
	}
	s, ok := b.Take()
	want := Spans{Lane: someLane, Writer: someWriter, Runs: []Span{{10, 101}, {13, 110}}}
	if diff := cmp.Diff(want, s); diff != "" || !ok {
		t.Errorf("%v\n%s", ok, diff)
	}
	b.Add(115, 5)
	if s, ok := b.Take(); ok {
		t.Errorf("the same span again: %v", s)
	}
}
