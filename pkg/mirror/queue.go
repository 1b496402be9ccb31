package mirror

// queue is a first-in first-out ring that keeps its memory.
type queue[T any] struct {
	buf  []T
	head int
	n    int
}

func (q *queue[T]) len() int { return q.n }

// at returns the i-th element from the front, to be read or changed in place.
func (q *queue[T]) at(i int) *T { return &q.buf[(q.head+i)&(len(q.buf)-1)] }

func (q *queue[T]) push(v T) {
	if q.n == len(q.buf) {
		grown := make([]T, max(8, 2*len(q.buf)))
		for i := range q.n {
			grown[i] = *q.at(i)
		}
		q.buf, q.head = grown, 0
	}
	*q.at(q.n) = v
	q.n++
}

func (q *queue[T]) pop() T {
	p := q.at(0)
	v := *p
	var zero T
	*p = zero
	q.head = (q.head + 1) & (len(q.buf) - 1)
	q.n--
	return v
}

// popBack removes the newest element.
func (q *queue[T]) popBack() T {
	p := q.at(q.n - 1)
	v := *p
	var zero T
	*p = zero
	q.n--
	return v
}
