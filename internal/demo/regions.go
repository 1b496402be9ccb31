package demo

import (
	"fmt"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"
)

// region is one embedded cluster of three brokers on loopback.
type region struct {
	name    string
	addrs   []string
	cluster *kfake.Cluster
}

func openRegion(name string) (*region, error) {
	c, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.ClusterID("demo-"+name), kfake.GroupMinSessionTimeout(sessionTimeout))
	if err != nil {
		return nil, fmt.Errorf("start region %s: %w", name, err)
	}
	return &region{name: name, addrs: c.ListenAddrs(), cluster: c}, nil
}

func (r *region) close() { r.cluster.Close() }

// createTopics makes the topics on the source; the target's are the daemons' to make.
func (r *region) createTopics() error {
	for _, t := range topics {
		if err := r.cluster.CreateTopic(t.name, t.partitions, nil); err != nil {
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
