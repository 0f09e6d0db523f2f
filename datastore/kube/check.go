package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tortie/tortie/datastore"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	checkTimeout = 3 * time.Second
	apiService   = "/apis/apiregistration.k8s.io/v1/apiservices/v3.projectcalico.org"
)

// ErrForeignAPI says that another program answers for projectcalico.org/v3.
var ErrForeignAPI = errors.New("projectcalico.org/v3 is served by Calico's API server")

// checkServer fails if the cluster has Calico's aggregated API server: what is written there would end up in Calico's own
// objects. A server that does not answer is asked again by the first watch.
func (s *Store) checkServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := s.foreignAPI(ctx)
	if errors.Is(err, ErrForeignAPI) {
		return err
	}
	if err != nil {
		s.log.Debug("it is not known yet who serves projectcalico.org/v3", "err", err)
	}
	return nil
}

func (s *Store) foreignAPI(ctx context.Context) error {
	var o rawObject
	err := s.raw.Get().AbsPath(apiService).Do(ctx).Into(&o)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsForbidden(err):
		s.log.Debug("not allowed to see who serves projectcalico.org/v3", "err", err)
		return nil
	case err != nil:
		return translate(ctx, err)
	}
	var service struct {
		Spec struct {
			Service *struct{ Namespace, Name string } `json:"service"`
		} `json:"spec"`
	}
	// The server itself makes an APIService for each group of CRDs, without a service.
	if json.Unmarshal(o.data, &service) != nil || service.Spec.Service == nil {
		return nil
	}
	return fmt.Errorf("%w: %w (service %s/%s): Tortie's kinds are CustomResourceDefinitions of the same group. Take Calico's API server "+
		"out first (kubectl delete apiserver default, or kubectl delete apiservice v3.projectcalico.org once its deployment is gone); "+
		"tortie migrate calico takes its objects over", datastore.ErrInvalid, ErrForeignAPI, service.Spec.Service.Namespace, service.Spec.Service.Name)
}
