package stranded

import (
	"fmt"

	"replicator/pkg/offsets"
)

// CountError is a number of records that does not prove what it should.
type CountError struct {
	offsets.Lane
	Found int64 // by Find
	Have  int64 // read now, or counted where they were put
	Where string
}

func (e *CountError) Error() string {
	where := e.Where
	if where == "" {
		where = "in the old region now"
	}
	return fmt.Sprintf("count records of %v: %d were found, %d are %s: retention or compaction removed some since, or somebody else changed the topic; look for stranded records again and compare",
		e.Lane, e.Found, e.Have, where)
}

// ResumeError is a lane whose progress does not fit what the old region has.
type ResumeError struct {
	offsets.Lane
	Next   int64 // source offset, next: up to there an earlier run came
	Reason string
}

func (e *ResumeError) Error() string {
	return fmt.Sprintf("go on with %v from offset %d: %s", e.Lane, e.Next, e.Reason)
}
