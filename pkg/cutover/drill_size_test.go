package cutover

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/klauspost/compress/s2"

	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
)

// A drill is run every night: what it leaves in the audit topic does not grow with the
// number of partitions. A run that changes something keeps every row.
func TestWhatADrillKeepsDoesNotGrowWithTheLanes(t *testing.T) {
	w := &world{}
	for i := range 10_000 {
		lane := offsets.Lane{Topic: fmt.Sprintf("orders.region-%d.v1", i/10), Partition: int32(i % 10)}
		v := laneView{lane: lane, sourceEnd: 1_000_000 + int64(i), sourceStable: 1_000_000, known: true, tail: offsets.Tail{End: 1_000_100, State: offsets.StateOf()}}
		w.lanes = append(w.lanes, v)
	}
	all := w.laneRows()
	for i := range all { // as lanes that have come to their ends, but for some
		at := all[i].SourceEnd
		lag := int64(0)
		if i%1000 == 999 {
			lag = 7
		}
		all[i].Position, all[i].Lag, all[i].Writer = at-lag, &lag, fmt.Sprintf("%d/%d", 4000+i, i%7)
	}
	kept := evidence.LanesDoc(shortened(all, behind))
	size := func(rows evidence.LanesDoc) (plain, compressed int) {
		t.Helper()
		b, err := json.Marshal(rows)
		if err != nil {
			t.Fatal(err)
		}
		return len(b), len(s2.EncodeSnappy(nil, b))
	}
	before, beforeZ := size(all)
	after, afterZ := size(kept)
	t.Logf("a table of 10,000 lanes: %d bytes, %d compressed; kept: %d rows, %d bytes, %d compressed", before, beforeZ, len(kept), after, afterZ)
	if len(kept) != 10+rightKept || *kept[9].Lag != 7 || *kept[10].Lag != 0 {
		t.Errorf("%d rows are kept, the first with lag %v", len(kept), *kept[0].Lag)
	}
	if after > 64<<10 {
		t.Errorf("%d bytes are kept of every drill", after)
	}
	wrong := make([]evidence.LaneRow, 2*wrongKept)
	if n := len(shortened(wrong, behind)); n != wrongKept {
		t.Errorf("of %d rows with unknown lag %d are kept, want %d", len(wrong), n, wrongKept)
	}
}
