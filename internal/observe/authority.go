package observe

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"replicator/internal/status"
)

// authorityAnswer is what /authority says.
type authorityAnswer struct {
	Pair   string     `json:"pair"`
	Epoch  int64      `json:"epoch"` // 0: none was ever set, the region is implied by the links
	Region string     `json:"region"`
	Since  *time.Time `json:"since,omitempty"` // absent with epoch 0
}

// authority needs no token: load balancers and clients ask it which region to
// write to. It answers by the status code:
//
//	200  the region is authoritative, or no region was asked for
//	503  it is not, or who is is not known
//	404  no pair of this daemon has the region, or is the one named
//	400  there are several pairs, and pair=a/b names none
func (h *handler) authority(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*answerTime)
	defer cancel()
	s, err := h.cfg.Source.Get(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	region, pair := r.FormValue("region"), r.FormValue("pair")
	found := slices.DeleteFunc(slices.Clone(s.Authority), func(a status.Authority) bool {
		return pair != "" && a.Pair != pair || region != "" && !slices.Contains(a.Regions, region)
	})
	switch {
	case len(found) == 0:
		http.Error(w, "no pair of this daemon is meant: its links have no such region, or no authority", http.StatusNotFound)
		return
	case len(found) > 1:
		http.Error(w, fmt.Sprintf("%d pairs are meant: name one with pair=a/b", len(found)), http.StatusBadRequest)
		return
	case !found[0].Known:
		why := "it is not known which region is authoritative"
		if h.authorized(r) { // the error may name topics and addresses
			why += ": " + Printable(found[0].Error)
		}
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	a := &found[0]
	code := http.StatusOK
	if region != "" && region != a.Region {
		code = http.StatusServiceUnavailable
	}
	h.json(w, code, authorityAnswer{Pair: a.Pair, Epoch: a.Epoch, Region: a.Region, Since: a.Since})
}
