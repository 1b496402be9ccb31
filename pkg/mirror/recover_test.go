package mirror

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"replicator/pkg/offsets"
)

// What an opening finds: the journal's facts, the target's log up to our control
// record, and where the lane goes on. Our writer is 7/5, its predecessor 7/4.
func TestRecoverLane(t *testing.T) {
	lane := offsets.Lane{Topic: "orders", Partition: 3}
	before, ours := offsets.Writer{ProducerID: 7, Epoch: 4}, offsets.Writer{ProducerID: 7, Epoch: 5}
	// The predecessor opened at ordinal 100, source offset 1000, target offset 110.
	epoch := offsets.EpochRecord{Lane: lane, Writer: before, Ordinal: 100, Source: 1000, Target: 110, SourceLeaderEpoch: 2}
	// Its records from ordinal 120 on come from source offset 1050 on.
	span := offsets.Spans{Lane: lane, Writer: before, Runs: []offsets.Span{{Ordinal: 120, Source: 1050}}}
	position := offsets.Position{Lane: lane, Writer: before, Ordinal: 130, Source: 1060, Target: 140, SourceLeaderEpoch: 3}
	data := func(w offsets.Writer, sequence int32, base, n int64) logBatch {
		return logBatch{writer: w, sequence: sequence, base: base, next: base + n}
	}
	marker := func(at int64) logBatch { return logBatch{writer: ours, control: true, base: at, next: at + 1} }

	tests := []struct {
		name  string
		facts []offsets.Entry
		log   targetLog
		want  recovered
		err   string
	}{
		{
			name: "nobody opened the lane before",
			log:  targetLog{marker: 0, batches: []logBatch{marker(0)}},
			want: recovered{first: true, source: -1, sourceEpoch: -1, verify: -1, verifyEpoch: -1},
		}, {
			name:  "nothing was appended after the opening before",
			facts: []offsets.Entry{epoch},
			log:   targetLog{marker: 110, batches: []logBatch{marker(110)}},
			want:  recovered{ordinal: 100, source: 1000, sourceEpoch: 2, verify: 1000, verifyEpoch: 2},
		}, {
			name:  "the position is the end",
			facts: []offsets.Entry{epoch, span, position},
			log:   targetLog{marker: 140, batches: []logBatch{data(before, 29, 139, 1), marker(140)}},
			want:  recovered{ordinal: 130, source: 1060, sourceEpoch: 3, verify: 1060, verifyEpoch: 3},
		}, {
			name:  "records stand beyond the position",
			facts: []offsets.Entry{epoch, span, position},
			log:   targetLog{marker: 145, batches: []logBatch{data(before, 28, 138, 7), marker(145)}},
			want:  recovered{ordinal: 135, source: 1065, sourceEpoch: -1, verify: 1060, verifyEpoch: 3, beyond: true},
		}, {
			name:  "records without any position, over a span",
			facts: []offsets.Entry{epoch, span},
			log:   targetLog{marker: 135, batches: []logBatch{data(before, 0, 110, 25), marker(135)}},
			want:  recovered{ordinal: 125, source: 1055, sourceEpoch: -1, verify: 1000, verifyEpoch: 2, beyond: true},
		}, {
			name:  "somebody else wrote in between",
			facts: []offsets.Entry{epoch, span, position},
			log:   targetLog{marker: 152, batches: []logBatch{data(offsets.Writer{ProducerID: 99}, 0, 140, 10), data(before, 30, 150, 2), marker(152)}},
			want: recovered{
				ordinal: 132, source: 1062, sourceEpoch: -1, verify: 1060, verifyEpoch: 3, beyond: true, foreign: 10,
				shifts: []offsets.Shift{{Lane: lane, Writer: before, Ordinal: 130, Target: 150}},
			},
		}, {
			name:  "the target lost its tail",
			facts: []offsets.Entry{epoch, span, position},
			log:   targetLog{marker: 125, batches: []logBatch{data(before, 0, 110, 15), marker(125)}},
			want: recovered{
				ordinal: 115, source: 1015, sourceEpoch: -1, verify: -1, verifyEpoch: -1, beyond: true,
				cut: &offsets.Cut{Lane: lane, Writer: ours, Ordinal: 115, Source: 1015, Target: 125},
			},
		}, {
			name:  "the target lost everything we know of",
			facts: []offsets.Entry{epoch, span, position},
			log:   targetLog{marker: 5, batches: []logBatch{marker(5)}},
			err:   "no record of ours is left",
		}, {
			name:  "records the journal does not know",
			facts: []offsets.Entry{epoch},
			log:   targetLog{marker: 150, batches: []logBatch{data(offsets.Writer{ProducerID: 7, Epoch: 3}, 0, 140, 10), marker(150)}},
			err:   "the journal does not know",
		}, {
			name:  "the journalled end was written by another",
			facts: []offsets.Entry{epoch, span, position},
			log:   targetLog{marker: 145, batches: []logBatch{data(offsets.Writer{ProducerID: 99}, 0, 130, 15), marker(145)}},
			err:   "was rewritten",
		}, {
			name:  "a batch of ours is missing",
			facts: []offsets.Entry{epoch, span, position},
			log:   targetLog{marker: 150, batches: []logBatch{data(before, 35, 145, 5), marker(150)}},
			err:   "out of place",
		}, {
			name:  "retention removed records before they were accounted for",
			facts: []offsets.Entry{epoch, span, position},
			log:   targetLog{start: 150, marker: 160, batches: []logBatch{marker(160)}},
			err:   "retention removed records of the target",
		}, {
			name:  "another holder came after us",
			facts: []offsets.Entry{epoch, span, position},
			log:   targetLog{marker: 140, batches: []logBatch{{writer: offsets.Writer{ProducerID: 7, Epoch: 6}, control: true, base: 141, next: 142}}},
			err:   "took epoch 6",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := recoverLane(offsets.StateOf(tt.facts...), lane, ours, tt.log)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one that says %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(recovered{}), cmpopts.IgnoreFields(offsets.Cut{}, "Time"), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("wanted (-), got (+):\n%s", d)
			}
		})
	}
}
