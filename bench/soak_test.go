package main

import (
	"strings"
	"testing"
	"time"
)

func sampleAt(seconds float64, lag float64) soakSample {
	return soakSample{At: seconds, LagRecords: &lag, Daemons: map[string]daemonSample{}}
}

// What an event does to the lag is not its floor, and what is unknown is not 0.
func TestFloorLeavesEventsOut(t *testing.T) {
	back := 60.0
	r := soakResults{Length: 10 * time.Minute, Events: []soakEvent{{Kind: "killed", At: 40, Done: 45, Recovered: &back}}}
	for s := 0.0; s < 200; s += 10 {
		one := sampleAt(s, 5)
		if s >= 40 && s <= 60 {
			one = sampleAt(s, 90_000)
		}
		if s == 100 {
			one.LagRecords = nil
		}
		r.Samples = append(r.Samples, one)
	}
	r.Samples = append(r.Samples, sampleAt(700, 0)) // after the load
	records := r.floor(10)
	for _, v := range records {
		if v.y != 5 {
			t.Errorf("lag at %.0f s is %v", v.x*3600, v.y)
		}
	}
	if len(records) != 15 { // of 20: without 40 to 70, and 100
		t.Errorf("%d samples are left", len(records))
	}
}

func steadySample(seconds, memory float64) soakSample {
	one := sampleAt(seconds, 10)
	one.Daemons["steady"] = daemonSample{PID: 1, Age: seconds, RSS: int64(memory * (1 << 20)), Goroutines: 48, Files: 30}
	return one
}

func TestAVerdictFindsALeak(t *testing.T) {
	for _, c := range []struct {
		name   string
		leak   float64 // MiB an hour
		passes bool
	}{{"flat", 0, true}, {"leak", 30, false}} {
		back := 650.0
		s := &soak{lab: &lab{began: time.Now()}, length: time.Hour, every: 10 * time.Second, rate: 3000}
		s.results = soakResults{Length: time.Hour, Events: []soakEvent{{Kind: "killed", At: 600, Done: 610, Recovered: &back}}}
		for x := 0.0; x < 3600; x += 10 {
			memory := 45 + c.leak*x/3600
			if x < 300 {
				memory = 30 // it has just begun
			}
			s.results.Samples = append(s.results.Samples, steadySample(x, memory))
		}
		s.judge()
		err := s.verdict()
		if (err == nil) != c.passes {
			t.Errorf("%s: %v, %v", c.name, err, s.results.Verdicts)
		}
		text := s.results.markdown("x")
		if strings.Contains(text, "**failed**") == c.passes || !strings.Contains(text, "| killed | 1 | 10.0 (10.0) | 40.0 (40.0) |") {
			t.Errorf("%s: report\n%s", c.name, text)
		}
	}
	if err := (&soak{}).verdict(); err == nil {
		t.Error("no verdict at all is a success")
	}
	if len(short().figure().svg()) < 1000 {
		t.Error("no figure")
	}
}

func short() *soakResults {
	return &soakResults{Length: time.Minute, Samples: []soakSample{steadySample(1, 40), {At: 2}, steadySample(3, 41)}}
}

func TestSoakTopicsShareTheRate(t *testing.T) {
	sum := 0
	for _, topic := range soakTopics(1) {
		sum += topic.share
	}
	if sum != 100 || soakLanes() != 40 || len(wholeTopics()) != len(soakTopics(0))-1 {
		t.Errorf("shares are %d %%, %d lanes", sum, soakLanes())
	}
}
