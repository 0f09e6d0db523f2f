//go:build linux

package containerd

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kubelet says what a kubelet says.
type kubelet struct {
	conn         *grpc.ClientConn
	runtime      cri.RuntimeServiceClient
	images       cri.ImageServiceClient
	cgroupParent string
}

// newKubelet makes a kubelet for the runtime at a socket. It connects when it first has something to say.
func newKubelet(socket, cgroupParent string) (*kubelet, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, err
	}
	return &kubelet{conn, cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn), cgroupParent}, nil
}

// networkReady is what the runtime says of its network: "" if it is ready.
func (k *kubelet) networkReady(ctx context.Context) error {
	s, err := k.runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range s.Status.Conditions {
		if c.Type == cri.NetworkReady && !c.Status {
			return fmt.Errorf("the network is not ready: %s: %s", c.Reason, c.Message)
		}
	}
	return nil
}

// hasImage is nil once the runtime knows the image of sandboxes.
func (k *kubelet) hasImage(ctx context.Context) error {
	s, err := k.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: imageName}})
	if err == nil && s.Image == nil {
		err = fmt.Errorf("no image %s", imageName)
	}
	return err
}

// sandbox is the sandbox of a pod.
type sandbox struct {
	kubelet *kubelet
	id      string
	pod     string
}

// run brings a pod's sandbox up. It is removed when the test ends.
func (k *kubelet) run(t *testing.T, pod string) *sandbox {
	t.Helper()
	r, err := k.runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: pod, Namespace: "shop", Uid: "uid-of-" + pod},
		Linux:    &cri.LinuxPodSandboxConfig{CgroupParent: k.cgroupParent},
	}})
	if err != nil {
		t.Fatalf("running a sandbox for %s: %v", pod, err)
	}
	s := &sandbox{k, r.PodSandboxId, pod}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		if err := s.remove(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// status is whether the sandbox is up, its address, and where the runtime has its network namespace.
func (s *sandbox) status(ctx context.Context) (ready bool, addr netip.Addr, err error) {
	r, err := s.kubelet.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: s.id})
	if err != nil {
		return false, addr, err
	}
	if r.Status.Network.GetIp() != "" {
		addr, err = netip.ParseAddr(r.Status.Network.Ip)
	}
	return r.Status.State == cri.PodSandboxState_SANDBOX_READY, addr, err
}

// stop stops the sandbox. One that is not there is no error to a kubelet.
func (s *sandbox) stop(ctx context.Context) error {
	_, err := s.kubelet.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: s.id})
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("stopping the sandbox of %s: %w", s.pod, err)
	}
	return nil
}

// remove stops the sandbox and removes it.
func (s *sandbox) remove(ctx context.Context) error {
	if err := s.stop(ctx); err != nil {
		return err
	}
	if _, err := s.kubelet.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: s.id}); err != nil {
		return fmt.Errorf("removing the sandbox of %s: %w", s.pod, err)
	}
	return nil
}
