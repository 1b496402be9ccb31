package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/kafkatest"
)

// drillRights are what a drill of a link whose topics and groups begin with prefix needs:
// the rights of a switchover, as far as its gates ask for them, and its own.
func drillRights(from, to, prefix string) []grant {
	id, scratch, pair := "replicator."+from+"."+to, "replicator.drill.", "replicator.authority."+from+"."+to
	rights := []grant{
		{kind: "topic", name: prefix, prefix: true, operation: kadm.OpRead},
		{kind: "topic", name: prefix, prefix: true, operation: kadm.OpDescribeConfigs},
		{kind: "group", name: prefix, prefix: true, operation: kadm.OpDescribe},
		{kind: "topic", name: "replicator.authority", operation: kadm.OpRead},
		{kind: "topic", name: "replicator.audit", operation: kadm.OpRead},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpRead},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpWrite},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpDescribeConfigs},
		{target: true, kind: "group", name: prefix, prefix: true, operation: kadm.OpDescribe},
		{target: true, kind: "topic", name: id + ".journal", operation: kadm.OpRead},
		{target: true, kind: "topic", name: id + ".journal", operation: kadm.OpDescribeConfigs},
		{target: true, kind: "topic", name: id + ".checkpoints", operation: kadm.OpRead},
		{target: true, kind: "transactional id", name: id + ".", prefix: true, operation: kadm.OpWrite},
		{target: true, kind: "transactional id", name: pair, prefix: true, operation: kadm.OpWrite},
		{target: true, kind: "transactional id", name: pair, prefix: true, operation: kadm.OpDescribe},
	}
	for _, name := range []string{"replicator.authority", "replicator.audit"} {
		for _, op := range []kadm.ACLOperation{kadm.OpCreate, kadm.OpRead, kadm.OpWrite} {
			rights = append(rights, grant{target: true, kind: "topic", name: name, operation: op})
		}
	}
	for _, op := range []kadm.ACLOperation{kadm.OpCreate, kadm.OpRead, kadm.OpWrite, kadm.OpDelete, kadm.OpDescribeConfigs} {
		rights = append(rights, grant{target: true, kind: "topic", name: scratch, prefix: true, operation: op})
	}
	for _, op := range []kadm.ACLOperation{kadm.OpRead, kadm.OpDelete} {
		rights = append(rights, grant{target: true, kind: "group", name: scratch, prefix: true, operation: op})
	}
	return rights
}

// A drill with exactly the rights of the list finds nothing but that there is no link
// back; without one of its own it says which it lacks, and what it could not remove the
// next one does.
func exactRightsOfADrill(t *testing.T, pair *kafkatest.ClusterPair) {
	c := ruledLink(t, pair, "drl", false, nil)
	c.well(t)
	from, to := c.from, c.to
	from.user, to.user = "driller", "driller"
	file := linkFile(t, from, to, `drl\..*`, "", fmt.Sprintf("cutover: {writers: stopped, settle: 100ms, evidence: %q}\n", t.TempDir()))
	for _, g := range drillRights(from.alias, to.alias, "drl.") {
		g.give(t, from, to)
	}
	var all strings.Builder
	drill := func() (drillResult, string) {
		t.Helper()
		stdout, stderr, code := runCommand(t, "drill", "-o", "json", "-c", file)
		if code != 3 || stdout == "" {
			t.Fatalf("drill: exit code %d\n%s\n%s", code, stdout, stderr)
		}
		all.WriteString(stderr)
		return resultOf[drillResult](t, stdout), stdout + stderr
	}
	if r, said := drill(); !slices.Equal(r.Failed, []string{"reverse link"}) || strings.Contains(said, "AUTHORIZATION") && !strings.Contains(said, "does not tell") {
		t.Errorf("with all rights %v failed:\n%s", r.Failed, said)
	}
	scratch := func(op kadm.ACLOperation, kind string) grant {
		return grant{target: true, kind: kind, name: "replicator.drill.", prefix: true, operation: op}
	}
	for _, without := range []struct {
		grant
		check, says string
	}{
		{scratch(kadm.OpCreate, "topic"), "fence", "TOPIC_AUTHORIZATION_FAILED"},
		{scratch(kadm.OpDelete, "topic"), "clean-up", "delete topic replicator.drill." + from.alias + "." + to.alias + ".drill-"},
		{scratch(kadm.OpDelete, "group"), "clean-up", "delete group replicator.drill." + from.alias + "." + to.alias + ".drill-"},
		{scratch(kadm.OpRead, "group"), "groups", "grant READ on group replicator.drill."},
	} {
		without.take(t, from, to)
		r, said := drill()
		if !slices.Contains(r.Failed, without.check) || !strings.Contains(r.check(without.check), without.says) {
			t.Errorf("without %v %v failed, %s says %q, want %q\n%s", without, r.Failed, without.check, r.check(without.check), without.says, said)
		}
		without.give(t, from, to)
	}
	r, said := drill()
	if !slices.Equal(r.Failed, []string{"reverse link"}) {
		t.Errorf("with all rights again %v failed:\n%s", r.Failed, said)
	}
	for _, want := range []string{"2 removed: topic replicator.drill.", "1 removed: group replicator.drill."} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("no drill said %q:\n%s", want, all.String())
		}
	}
	c.stop()
}
