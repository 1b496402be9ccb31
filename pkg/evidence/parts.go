package evidence

import (
	"encoding/json"
	"fmt"
)

// partBytes is how large the rows of one event may become. With what stands around them an event
// stays below MaxEventBytes.
const partBytes = 512 << 10

// parts cuts a document whose rows are too many for one event. What it holds beside its rows
// stands in every part.
func parts(doc any) ([]any, error) {
	switch d := doc.(type) {
	case LanesDoc:
		return cut(d, func(rows []LaneRow) any { return LanesDoc(rows) })
	case GroupsDoc:
		return cut(d, func(rows []GroupRow) any { return GroupsDoc(rows) })
	case GrowthDoc:
		return cut(d, func(rows []GrowthRow) any { return GrowthDoc(rows) })
	case *LossDoc:
		return parts(*d)
	case *StrandedDoc:
		return parts(*d)
	case LossDoc:
		return cut(d.Rows, func(rows []LossRow) any { d.Rows = rows; return d })
	case FenceDoc:
		return cut(d.Rows, func(rows []FenceRow) any { d.Rows = rows; return d })
	case StrandedDoc:
		return cut(d.Rows, func(rows []StrandedRow) any { d.Rows = rows; return d })
	}
	return []any{doc}, nil
}

func cut[T any](rows []T, with func([]T) any) ([]any, error) {
	var docs []any
	first, size := 0, 0
	for i := range rows {
		body, err := json.Marshal(rows[i])
		if err != nil {
			return nil, fmt.Errorf("encode row %d: %w", i, err)
		}
		if i > first && size+len(body) > partBytes {
			docs = append(docs, with(rows[first:i:i]))
			first, size = i, 0
		}
		size += len(body) + 1
	}
	if rows == nil {
		return []any{with([]T{})}, nil // not null: no rows is a fact
	}
	return append(docs, with(rows[first:])), nil
}
