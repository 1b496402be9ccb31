package mirror

import "testing"

// A link made for one topic copies it though its name is internal, which no other
// link does, and nothing else.
func TestOnlyCopiesOneTopicWhateverItsName(t *testing.T) {
	const name = "replicator.bench.1"
	for _, c := range []struct {
		o     Options
		topic string
		want  bool
	}{
		{Options{Only: name}, name, true},
		{Options{Only: name, Topics: []string{".*"}, TopicsExclude: []string{".*"}}, name, true},
		{Options{Only: name, Topics: []string{".*"}}, "orders", false},
		{Options{Only: name}, name + "1", false},
		{Options{Topics: []string{".*", `replicator\..*`, name}}, name, false},
	} {
		f, err := newTopicFilter(c.o.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		if got := f.match(c.topic); got != c.want {
			t.Errorf("%+v copies %s: %v", c.o, c.topic, got)
		}
	}
}
