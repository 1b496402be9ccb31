//go:build !unix

package demo

import (
	"errors"
	"os"
)

func suspend(*os.Process) error   { return errors.ErrUnsupported }
func unsuspend(*os.Process) error { return errors.ErrUnsupported }
