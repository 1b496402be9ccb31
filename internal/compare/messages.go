package compare

import (
	"encoding/binary"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// stampMessages corrects the timestamps of records out of compressed message
// sets of format 1 that the broker stamped: it writes its time to the message
// around the set only, which a Java consumer takes for all records in it, while
// kgo gives the producer's times. stored is what the records were decoded from.
func stampMessages(stored []byte, records []*kgo.Record) {
	const compressed, stamped = 0x07, 0x08
	for len(stored) >= 26 && len(records) > 0 {
		size := 12 + int(int32(binary.BigEndian.Uint32(stored[8:])))
		if size < 26 || size > len(stored) {
			return // the rest was cut off
		}
		last := int64(binary.BigEndian.Uint64(stored))
		attributes := stored[17]
		at := time.UnixMilli(int64(binary.BigEndian.Uint64(stored[18:])))
		correct := stored[16] == 1 && attributes&compressed != 0 && attributes&stamped != 0
		if stored[16] == 2 {
			if size < 27 {
				return
			}
			last += int64(int32(binary.BigEndian.Uint32(stored[23:])))
		}
		for len(records) > 0 && records[0].Offset <= last {
			if correct {
				records[0].Timestamp = at
			}
			records = records[1:]
		}
		stored = stored[size:]
	}
}
