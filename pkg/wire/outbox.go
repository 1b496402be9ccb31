package wire

import (
	"net"
)

// outbox holds one request while it is written: bytes of its own, with slices
// of others put in between. All its memory is reused.
type outbox struct {
	vectored bool    // the connection takes many slices in one call
	gather   *Gather // below TLS, nil if there is none
	head     []byte
	inserts  []insert
	size     int // of the whole request

	vector  net.Buffers
	pending net.Buffers // what WriteTo consumes of vector
	flat    []byte
}

// insert is a slice that goes before head[at].
type insert struct {
	at   int
	data []byte
}

// flatLimit is how much is gathered for one Write where the connection does
// not take vectors. Larger slices are written as they are.
const flatLimit = 64 << 10

func (o *outbox) reset() {
	o.head = o.head[:0]
	clear(o.inserts)
	o.inserts = o.inserts[:0]
	o.size = 0
}

// piece adds a slice that is not copied.
func (o *outbox) piece(data []byte) {
	o.inserts = append(o.inserts, insert{len(o.head), data})
	o.size += len(data)
}

// finish completes a request whose header is in head.
func (o *outbox) finish(corr int32) {
	o.size += len(o.head)
	finishRequest(o.head, o.size, corr)
}

// writeTo writes the request and returns how many bytes were taken.
func (o *outbox) writeTo(nc net.Conn) (int, error) {
	o.vector = o.vector[:0]
	from := 0
	for _, in := range o.inserts {
		if in.at > from {
			o.vector = append(o.vector, o.head[from:in.at])
			from = in.at
		}
		if len(in.data) > 0 {
			o.vector = append(o.vector, in.data)
		}
	}
	if from < len(o.head) {
		o.vector = append(o.vector, o.head[from:])
	}
	defer func() {
		clear(o.vector)
		clear(o.inserts)
	}()
	if o.vectored {
		o.pending = o.vector
		n, err := o.pending.WriteTo(nc)
		return int(n), err
	}
	if o.gather == nil {
		return o.writeFlat(nc)
	}
	o.gather.Hold()
	n, err := o.writeFlat(nc)
	left, flushErr := o.gather.Flush()
	if err == nil {
		err = flushErr
	}
	return max(0, n-left), err
}

// writeFlat writes the vector with few calls: small slices are gathered.
func (o *outbox) writeFlat(nc net.Conn) (written int, err error) {
	o.flat = o.flat[:0]
	write := func(b []byte) {
		if err == nil && len(b) > 0 {
			var n int
			n, err = nc.Write(b)
			written += n
		}
	}
	for _, b := range o.vector {
		if len(o.flat)+len(b) > flatLimit {
			write(o.flat)
			o.flat = o.flat[:0]
		}
		if len(b) > flatLimit/4 {
			write(o.flat)
			o.flat = o.flat[:0]
			write(b)
		} else {
			o.flat = append(o.flat, b...)
		}
	}
	write(o.flat)
	return written, err
}
