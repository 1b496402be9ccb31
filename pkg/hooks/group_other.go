//go:build !unix

package hooks

import "os/exec"

// group is the command alone: there are no process groups here.
type group struct{ cmd *exec.Cmd }

func newGroup(cmd *exec.Cmd) *group { return &group{cmd} }

func (g *group) terminate()     { _ = g.cmd.Process.Kill() }
func (g *group) kill()          { _ = g.cmd.Process.Kill() }
func (g *group) killLeftovers() {}
