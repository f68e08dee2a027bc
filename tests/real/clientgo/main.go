// What programs that use client-go do, each as one check that prints "ok NAME" or "FAIL NAME: why".
// The typed client speaks protobuf, as kube-controller-manager does; informers begin with a watch-list.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/retry"
)

const ns = "clientgo"

var (
	ctx     context.Context
	config  *rest.Config
	typed   *kubernetes.Clientset
	dyn     dynamic.Interface
	meta    metadata.Interface
	failed  int
	configs = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
)

func check(name string, what func() error) {
	if err := what(); err != nil {
		failed++
		fmt.Printf("FAIL %s: %v\n", name, err)
		return
	}
	fmt.Println("ok", name)
}

func until(what func() bool) error {
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 15*time.Second, true, func(context.Context) (bool, error) { return what(), nil })
}

func must(err error) {
	if err != nil {
		fmt.Println("FAIL start:", err)
		os.Exit(1)
	}
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"who": "clientgo"}}, Data: map[string]string{"a": "b"}, BinaryData: map[string][]byte{"raw": {0, 255, 7}}}
}

func typedObjects() error {
	made, err := typed.CoreV1().ConfigMaps(ns).Create(ctx, configMap("typed"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if string(made.BinaryData["raw"]) != "\x00\xff\x07" || made.UID == "" {
		return fmt.Errorf("it came back as %v", made)
	}
	stale := made.DeepCopy()
	if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		made.Data["a"] = "c"
		made, err = typed.CoreV1().ConfigMaps(ns).Update(ctx, made, metav1.UpdateOptions{})
		return err
	}); err != nil {
		return err
	}
	if _, err := typed.CoreV1().ConfigMaps(ns).Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		return fmt.Errorf("an old version was answered with %v", err)
	}
	if _, err := typed.CoreV1().ConfigMaps(ns).Patch(ctx, "typed", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{}); err != nil {
		return err
	}
	if _, err := typed.CoreV1().ConfigMaps(ns).Get(ctx, "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return fmt.Errorf("what is not there was answered with %v", err)
	}
	if _, err := typed.CoreV1().ConfigMaps(ns).Create(ctx, configMap("typed"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("what is there was made again: %v", err)
	}
	_, err = typed.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "bad"}}, metav1.CreateOptions{})
	status, is := err.(apierrors.APIStatus)
	if !apierrors.IsInvalid(err) || !is || len(status.Status().Details.Causes) < 2 {
		return fmt.Errorf("a deployment of nothing was answered with %v", err)
	}
	return nil
}

func applied() error {
	said := corev1apply.ConfigMap("applied", ns).WithData(map[string]string{"k": "v"})
	if _, err := typed.CoreV1().ConfigMaps(ns).Apply(ctx, said, metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		return err
	}
	other := corev1apply.ConfigMap("applied", ns).WithData(map[string]string{"k": "w"})
	if _, err := typed.CoreV1().ConfigMaps(ns).Apply(ctx, other, metav1.ApplyOptions{FieldManager: "two"}); !apierrors.IsConflict(err) {
		return fmt.Errorf("another's field was answered with %v", err)
	}
	now, err := typed.CoreV1().ConfigMaps(ns).Apply(ctx, other, metav1.ApplyOptions{FieldManager: "two", Force: true})
	if err != nil || now.Data["k"] != "w" {
		return fmt.Errorf("by force: %v %v", now, err)
	}
	extracted, err := corev1apply.ExtractConfigMap(now, "two")
	if err != nil || extracted.Data["k"] != "w" {
		return fmt.Errorf("extracted: %v %v", extracted, err)
	}
	return nil
}

// An informer that begins with a watch-list and follows what happens.
func informer() error {
	factory := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithNamespace(ns))
	maps := factory.Core().V1().ConfigMaps()
	deleted := make(chan string, 100)
	maps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(o any) { deleted <- o.(*corev1.ConfigMap).Name }})
	inner, stop := context.WithCancel(ctx)
	defer stop()
	factory.Start(inner.Done())
	if !cache.WaitForCacheSync(ctx.Done(), maps.Informer().HasSynced) {
		return fmt.Errorf("it was not filled")
	}
	for i := range 50 {
		if _, err := typed.CoreV1().ConfigMaps(ns).Create(ctx, configMap(fmt.Sprintf("many-%d", i)), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if err := until(func() bool { _, err := maps.Lister().ConfigMaps(ns).Get("many-49"); return err == nil }); err != nil {
		return fmt.Errorf("many-49 did not come: %w", err)
	}
	if err := typed.CoreV1().ConfigMaps(ns).Delete(ctx, "many-7", metav1.DeleteOptions{}); err != nil {
		return err
	}
	select {
	case name := <-deleted:
		if name != "many-7" {
			return fmt.Errorf("%s was deleted", name)
		}
	case <-time.After(10 * time.Second):
		return fmt.Errorf("its end was not told")
	}
	return nil
}

func metadataInformer() error {
	factory := metadatainformer.NewFilteredSharedInformerFactory(meta, 0, ns, func(o *metav1.ListOptions) { o.LabelSelector = "who=clientgo" })
	maps := factory.ForResource(configs)
	inner, stop := context.WithCancel(ctx)
	defer stop()
	go maps.Informer().Run(inner.Done())
	if !cache.WaitForCacheSync(ctx.Done(), maps.Informer().HasSynced) {
		return fmt.Errorf("it was not filled")
	}
	return until(func() bool { return len(maps.Informer().GetStore().List()) >= 49 })
}

func dynamicObjects() error {
	crds := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	_, err := dyn.Resource(crds).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "things.clientgo.test"},
		"spec": map[string]any{"group": "clientgo.test", "scope": "Namespaced", "names": map[string]any{"plural": "things", "kind": "Thing"},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": map[string]any{
				"type": "object", "properties": map[string]any{"spec": map[string]any{"type": "object", "properties": map[string]any{"n": map[string]any{"type": "integer", "default": int64(3)}}}}}}}}}}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	defer dyn.Resource(crds).Delete(context.Background(), "things.clientgo.test", metav1.DeleteOptions{})
	things := dyn.Resource(schema.GroupVersionResource{Group: "clientgo.test", Version: "v1", Resource: "things"}).Namespace(ns)
	var made *unstructured.Unstructured
	thing := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "clientgo.test/v1", "kind": "Thing", "metadata": map[string]any{"name": "t"}, "spec": map[string]any{}}}
	if err := until(func() bool { made, err = things.Create(ctx, thing, metav1.CreateOptions{}); return err == nil || apierrors.IsAlreadyExists(err) }); err != nil {
		return fmt.Errorf("the new kind cannot be used: %w", err)
	}
	if n, _, _ := unstructured.NestedInt64(made.Object, "spec", "n"); n != 3 {
		return fmt.Errorf("without its default: %v", made)
	}
	items, err := meta.Resource(schema.GroupVersionResource{Group: "clientgo.test", Version: "v1", Resource: "things"}).Namespace(ns).List(ctx, metav1.ListOptions{})
	if err != nil || len(items.Items) != 1 || items.Items[0].Name != "t" {
		return fmt.Errorf("its metadata: %v %v", items, err)
	}
	return nil
}

func published() error {
	v2, err := typed.Discovery().OpenAPISchema() // in protobuf
	if err != nil {
		return err
	}
	found := false
	for _, d := range v2.GetDefinitions().GetAdditionalProperties() {
		if d.GetName() == "io.k8s.api.core.v1.PodSpec" {
			for _, p := range d.GetValue().GetProperties().GetAdditionalProperties() {
				found = found || p.GetName() == "containers" && p.GetValue().GetType().GetValue()[0] == "array" && len(p.GetValue().GetVendorExtension()) >= 2
			}
		}
	}
	if !found || len(v2.GetPaths().GetPath()) < 100 {
		return fmt.Errorf("v2 has %d paths; containers found: %v", len(v2.GetPaths().GetPath()), found)
	}
	paths, err := typed.Discovery().OpenAPIV3().Paths()
	if err != nil {
		return err
	}
	for _, kind := range []string{"application/json", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"} {
		if text, err := paths["apis/apps/v1"].Schema(kind); err != nil || len(text) < 10000 {
			return fmt.Errorf("v3 as %s: %d bytes, %v", kind, len(text), err)
		}
	}
	_, lists, err := typed.Discovery().ServerGroupsAndResources()
	if err != nil || len(lists) < 20 {
		return fmt.Errorf("discovery: %d, %v", len(lists), err)
	}
	return nil
}

// Two candidates; the second leads when the first lets go.
func election() error {
	lead := make(chan string, 10)
	run := func(ctx context.Context, name string) {
		lock := &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Name: "elected", Namespace: ns}, Client: typed.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: name}}
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{Lock: lock, ReleaseOnCancel: true, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { lead <- name }, OnStoppedLeading: func() {}}})
	}
	for i, end := 0, context.CancelFunc(func() {}); i < 2; i++ {
		end()
		inner, cancel := context.WithCancel(ctx)
		end = cancel
		defer cancel()
		name := fmt.Sprintf("candidate-%d", i)
		go run(inner, name)
		select {
		case who := <-lead:
			if who != name {
				return fmt.Errorf("%s leads, not %s", who, name)
			}
		case <-time.After(10 * time.Second):
			return fmt.Errorf("nobody leads")
		}
	}
	return nil
}

func pages() error {
	seen := map[string]bool{}
	for more := ""; ; {
		list, err := typed.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{Limit: 7, Continue: more, LabelSelector: "who=clientgo"})
		if err != nil {
			return err
		}
		for _, o := range list.Items {
			if seen[o.Name] {
				return fmt.Errorf("%s twice", o.Name)
			}
			seen[o.Name] = true
		}
		if more = list.Continue; more == "" {
			break
		}
	}
	if len(seen) < 49 {
		return fmt.Errorf("%d in all", len(seen))
	}
	return typed.CoreV1().ConfigMaps(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "who=clientgo"})
}

func main() {
	var cancel context.CancelFunc
	ctx, cancel = context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	var err error
	config, err = clientcmd.BuildConfigFromFlags("", os.Args[1])
	must(err)
	config.QPS, config.Burst = 200, 400
	proto := rest.CopyConfig(config)
	proto.ContentType, proto.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	typed, err = kubernetes.NewForConfig(proto)
	must(err)
	dyn, err = dynamic.NewForConfig(config)
	must(err)
	meta, err = metadata.NewForConfig(config)
	must(err)
	_, err = typed.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
	must(err)
	check("typed", typedObjects)
	check("apply", applied)
	check("informer", informer)
	check("metadata", metadataInformer)
	check("dynamic", dynamicObjects)
	check("published", published)
	check("election", election)
	check("pages", pages)
	must(typed.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}))
	if failed > 0 {
		os.Exit(1)
	}
}
