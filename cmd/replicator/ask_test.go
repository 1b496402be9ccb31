package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"replicator/pkg/cutover"
	"replicator/pkg/evidence"
)

func askedPlan() (*cutoverOptions, *cutover.Plan) {
	return &cutoverOptions{verb: cutover.Switchover}, &cutover.Plan{PlanDoc: evidence.PlanDoc{Verb: "switchover", From: "east", To: "west"}}
}

func TestWhoAnswersLateHasTheWholeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit, cancel := newTimeLimit(t.Context(), time.Minute)
		defer cancel()
		in, keyboard := io.Pipe()
		time.AfterFunc(time.Hour, func() { io.WriteString(keyboard, "y\n") })
		o, plan := askedPlan()
		if err := (&app{stdin: in, stderr: io.Discard}).confirm(limit, o, plan); err != nil {
			t.Fatal(err)
		}
		if limit.Err() != nil {
			t.Fatalf("the time ran while nobody answered: %v", limit.Err())
		}
		answered := time.Now()
		child, stop := context.WithCancel(limit)
		defer stop()
		<-child.Done()
		if took := time.Since(answered); took != time.Minute || !errors.Is(child.Err(), context.DeadlineExceeded) {
			t.Errorf("ended after %v: %v", took, child.Err())
		}
	})
}

func TestAnInterruptEndsTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		command, interrupt := context.WithCancel(t.Context())
		limit, cancel := newTimeLimit(command, time.Minute)
		defer cancel()
		in, keyboard := io.Pipe()
		defer keyboard.Close()
		time.AfterFunc(time.Hour, interrupt)
		o, plan := askedPlan()
		err := (&app{stdin: in, stderr: io.Discard}).confirm(limit, o, plan)
		if no, ok := errors.AsType[*cutover.RefusedError](err); !ok || no.Fix != "nothing was changed" {
			t.Errorf("got %v", err)
		}
		if !errors.Is(limit.Err(), context.Canceled) {
			t.Errorf("the command goes on: %v", limit.Err())
		}
	})
}
