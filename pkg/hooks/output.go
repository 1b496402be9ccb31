package hooks

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const kept = 32 << 10 // bytes of each end of the output

// output keeps the beginning and the end of what is written to it.
type output struct {
	mu   sync.Mutex
	head []byte
	tail []byte // may grow to twice what is kept before it is cut
	all  int64  // bytes written
}

// Write takes everything.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(p)
	o.all += int64(n)
	room := min(kept-len(o.head), len(p))
	o.head, p = append(o.head, p[:room]...), p[room:]
	p = p[max(0, len(p)-kept):]
	if len(o.tail)+len(p) > 2*kept {
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-kept:]...)
	}
	o.tail = append(o.tail, p...)
	return n, nil
}

// String is what was kept, harmless wherever it is shown.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	tail := o.tail[max(0, len(o.tail)-kept):]
	left := o.all - int64(len(o.head)+len(tail))
	if left == 0 {
		return inert(bytes.Join([][]byte{o.head, tail}, nil))
	}
	return inert(o.head) + fmt.Sprintf("\n[%d bytes left out]\n", left) + inert(tail)
}

// inert writes control characters, marks of direction and what is not UTF-8 as Go
// would in a string: \x1b. Lines and tabs stay, a carriage return before the end of
// a line goes.
func inert(b []byte) string {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&s, `\x%02x`, b[0])
		case r == '\n' || r == '\t':
			s.WriteRune(r)
		case unicode.IsControl(r):
			fmt.Fprintf(&s, `\x%02x`, r)
		case unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp):
			fmt.Fprintf(&s, `\u%04x`, r)
		default:
			s.WriteRune(r)
		}
		b = b[n:]
	}
	return s.String()
}
