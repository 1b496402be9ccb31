package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/fakeproducers"
)

// region is one embedded cluster of three brokers on loopback, in a process of its
// own: it can die as a region does, and come back with what its brokers had written.
type region struct {
	name  string
	addrs []string
	*child
}

const brokers = 3

// newRegion prepares a region. Its ports stay the same when it returns.
func newRegion(ctx context.Context, name, dir string, command []string, fail context.CancelCauseFunc) (*region, error) {
	ports, err := freePorts(ctx, brokers)
	if err != nil {
		return nil, fmt.Errorf("find ports for region %s: %w", name, err)
	}
	r := &region{name: name}
	for _, p := range ports {
		r.addrs = append(r.addrs, net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
	}
	args := []string{"demo", "region", name, filepath.Join(dir, name)}
	for _, p := range ports {
		args = append(args, strconv.Itoa(p))
	}
	r.child = newChild("region "+name, "listening", append(append([]string{}, command...), args...), fail)
	return r, nil
}

// freePorts finds ports outside the range that systems give to outgoing connections:
// nobody takes one by chance while its region is dead.
func freePorts(ctx context.Context, n int) (ports []int, err error) {
	const from, to = 20000, 30000
	var held []net.Listener // so that none is found twice
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for range 50 * n {
		port := from + rand.IntN(to-from)
		var l net.Listener
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
			continue
		}
		held = append(held, l)
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, err
}

// ServeRegion is a region: it opens what dir holds, says so with a line of JSON, and
// ends with ctx. The first port is that of the first broker.
func ServeRegion(ctx context.Context, out io.Writer, name, dir string, ports []int) error {
	c, err := kfake.NewCluster(kfake.NumBrokers(len(ports)), kfake.Ports(ports...), kfake.ClusterID("demo-"+name),
		kfake.GroupMinSessionTimeout(time.Second), kfake.DataDir(dir))
	if err != nil {
		return fmt.Errorf("start region %s: %w", name, err)
	}
	defer c.Close()
	fakeproducers.Describe(c)
	if err := json.NewEncoder(out).Encode(map[string]string{"msg": "listening", "url": c.ListenAddrs()[0]}); err != nil {
		return fmt.Errorf("start region %s: %w", name, err)
	}
	<-ctx.Done()
	return nil
}

// createTopics makes the topics; those of the other region are the daemon's to make.
func (r *region) createTopics(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(r.addrs...))
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	defer client.Close()
	for _, t := range topics {
		if _, err := kadm.NewClient(client).CreateTopic(ctx, t.partitions, 1, nil, t.name); err != nil {
			return fmt.Errorf("create topic %s: %w", t.name, err)
		}
	}
	return nil
}

// ports is addresses of one host, shortened: 127.0.0.1:4001, 4002, 4003.
func ports(addrs []string) string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a
		if _, port, err := net.SplitHostPort(a); err == nil && i > 0 {
			out[i] = port
		}
	}
	return strings.Join(out, ", ")
}
