"""A pod prepared for mounts: what it gets, what stays, and what is refused."""

from __future__ import annotations

import copy

import pytest

from volume_core import VolumeError, hookimpl, pods
from volume_core.plugins.manager import register


def pod(**container):
    """A PodSpec with one container, called primary."""
    return {"containers": [{"name": "primary", **container}]}


def primary(spec, **options):
    """The container of *spec* once it is prepared."""
    return pods.prepared(spec, **options).spec["containers"][0]


def environment(container):
    return {each["name"]: each["value"] for each in container["env"]}


def test_a_container_gets_the_device_the_capability_the_user_and_a_disk():
    spec, annotations = pods.prepared(pod())

    assert {
        "containers": [
            {
                "name": "primary",
                "resources": {"requests": {"smarter-devices/fuse": "1"}, "limits": {"smarter-devices/fuse": "1"}},
                "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}, "runAsUser": 0},
                "env": [
                    {"name": "VOLUME_STATE_DIR", "value": "/var/lib/volumes"},
                    {"name": "VOLUME_CACHE_LIMIT", "value": str(10 << 30)},
                ],
                "volumeMounts": [{"name": "volume-state", "mountPath": "/var/lib/volumes"}],
            }
        ],
        "volumes": [{"name": "volume-state", "emptyDir": {"sizeLimit": "20Gi"}}],
    } == spec
    assert {} == annotations


def test_without_a_device_plugin_a_privileged_container_gets_the_nodes_device():
    spec = pods.prepared(pod(), privileged=True).spec
    container = spec["containers"][0]

    assert container["securityContext"]["privileged"] is True
    assert {"name": "fuse-device", "hostPath": {"path": "/dev/fuse", "type": "CharDevice"}} in spec["volumes"]
    assert {"name": "fuse-device", "mountPath": "/dev/fuse"} in container["volumeMounts"]
    assert {} == container["resources"]


@pytest.mark.parametrize(
    "options", [{}, {"privileged": True}, {"apparmor_unconfined": True, "run_as_user": 1000}, {"cache_size": None}]
)
def test_prepared_twice_is_prepared_once_and_what_was_given_is_not_changed(options):
    given = pod(image="image", resources={"limits": {"cpu": 2}}, env=[{"name": "A", "value": "b"}])
    before = copy.deepcopy(given)
    once = pods.prepared(given, **options)

    assert once == pods.prepared(once.spec, **options)
    assert before == given


def test_what_a_container_has_already_stays():
    given = {
        "containers": [
            {"name": "side", "image": "sidecar"},
            {
                "name": "primary",
                "resources": {
                    "requests": {"cpu": "1"},
                    "limits": {"cpu": "2", "memory": "4Gi"},
                    "claims": [{"name": "c"}],
                },
                "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["MKNOD"]}, "runAsGroup": 5},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            },
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
        "tolerations": [{"key": "gpu"}],
    }
    spec = pods.prepared(given, requests={"memory": "2Gi"}, limits={"memory": "8Gi"}).spec
    side, container = spec["containers"]

    assert given["containers"][0] == side
    assert given["tolerations"] == spec["tolerations"]
    assert given["volumes"][0] == spec["volumes"][0]
    assert {"cpu": "1", "memory": "2Gi", "smarter-devices/fuse": "1"} == container["resources"]["requests"]
    assert {"cpu": "2", "memory": "8Gi", "smarter-devices/fuse": "1"} == container["resources"]["limits"]
    assert [{"name": "c"}] == container["resources"]["claims"]
    assert {"add": ["NET_ADMIN", "SYS_ADMIN"], "drop": ["MKNOD"]} == container["securityContext"]["capabilities"]
    assert 5 == container["securityContext"]["runAsGroup"]
    assert given["containers"][1]["env"][0] == container["env"][0]
    assert given["containers"][1]["volumeMounts"][0] == container["volumeMounts"][0]


def test_the_container_is_found_by_its_name():
    given = {"containers": [{"name": "side"}, {"name": "main"}]}
    side, main = pods.prepared(given, "main").spec["containers"]

    assert {"name": "side"} == side
    assert "securityContext" in main


@pytest.mark.parametrize(
    ("given", "there"), [(pod(), "there is 'primary'"), ({"containers": []}, "there is none"), ({}, "there is none")]
)
def test_a_container_that_is_not_there_is_an_error_that_names_those_that_are(given, there):
    with pytest.raises(VolumeError, match=f"no container 'main'; {there}"):
        pods.prepared(given, "main")


# -- quantities


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", 2), (3, 3), (0.5, 0.5), ("500m", 0.5), ("4Gi", 4 << 30), ("1e3", 1000), ("2E", 2 * 10**18), (".5k", 500),
     ("1E2", 100), ("7u", 7e-6)],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_reads_them(text, number):
    assert number == pytest.approx(float(pods.quantity(text, "what")), rel=1e-12)


@pytest.mark.parametrize("text", ["", "-1", "4 Gi", "4gb", "much", "1KI", True, None, "1e", "nan"])
def test_what_is_no_quantity_is_an_error_that_says_where(text):
    with pytest.raises(VolumeError, match=r"limits\['memory'\] is "):
        pods.prepared(pod(), limits={"memory": text})


def test_a_request_above_its_limit_is_refused():
    with pytest.raises(VolumeError, match=r"requests\['memory'\] is 2Gi, more than its limit of 1G"):
        pods.prepared(pod(resources={"limits": {"memory": "1G"}}), requests={"memory": "2Gi"})


def test_a_resource_that_kubernetes_does_not_know_is_refused():
    with pytest.raises(VolumeError, match=r"requests\['mem'\]: Kubernetes knows no such resource; there are cpu, "):
        pods.prepared(pod(), requests={"mem": "2Gi"})


def test_resources_of_vendors_and_large_pages_are_taken():
    limits = {"nvidia.com/gpu": 1, "hugepages-2Mi": "100Mi"}

    assert {"nvidia.com/gpu": "1", "hugepages-2Mi": "100Mi"}.items() <= primary(pod(), limits=limits)["resources"][
        "limits"
    ].items()


@pytest.mark.parametrize("device", ["fuse", "", "a/b/c", "-/fuse"])
def test_what_is_no_name_of_a_device_is_refused(device):
    with pytest.raises(VolumeError, match="give the resource that the cluster's device plugin advertises"):
        pods.prepared(pod(), device=device)


def test_another_device_takes_the_place_of_the_default_one():
    assert {"limits": {"hdls.me/fuse": "1"}, "requests": {"hdls.me/fuse": "1"}} == primary(
        pod(), device="hdls.me/fuse"
    )["resources"]


def test_a_device_that_is_half_there_is_completed_and_one_that_is_contradicted_refused():
    limits = {"limits": {"smarter-devices/fuse": "2"}}

    with pytest.raises(VolumeError, match="requests and limits of smarter-devices/fuse differ"):
        pods.prepared(pod(resources=limits))
    assert (
        "1"
        == primary(pod(resources={"limits": {"smarter-devices/fuse": 1}}))["resources"]["requests"][
            "smarter-devices/fuse"
        ]
    )


# -- users and privileges


def test_the_user_is_the_one_asked_for_else_the_pods_else_root():
    of_pod = {**pod(), "securityContext": {"runAsUser": 7}}

    assert 1000 == primary(of_pod, run_as_user=1000)["securityContext"]["runAsUser"]
    assert 7 == primary(of_pod)["securityContext"]["runAsUser"]
    assert 8 == primary(pod(securityContext={"runAsUser": 8}))["securityContext"]["runAsUser"]
    assert 0 == primary(pod())["securityContext"]["runAsUser"]


def test_the_images_own_user_may_get_privilege_from_fusermount3():
    security = primary(pod(securityContext={"runAsNonRoot": True}), run_as_user=None)["securityContext"]

    assert "runAsUser" not in security
    assert security["allowPrivilegeEscalation"] is True


@pytest.mark.parametrize("user", [-1, "root", True, 1.5])
def test_what_is_no_user_id_is_refused(user):
    with pytest.raises(VolumeError, match="run_as_user is "):
        pods.prepared(pod(), run_as_user=user)


@pytest.mark.parametrize(
    ("security", "options", "message"),
    [
        ({"privileged": False}, {"privileged": True}, "privileged: false"),
        ({"allowPrivilegeEscalation": False}, {"privileged": True}, "allowPrivilegeEscalation: false"),
        ({"allowPrivilegeEscalation": False}, {"run_as_user": 1000}, "fusermount3 gets no privilege"),
        ({"runAsNonRoot": True}, {}, "runAsNonRoot: true"),
        ({"appArmorProfile": {"type": "RuntimeDefault"}}, {"apparmor_unconfined": True}, "which is it"),
    ],
)
def test_what_contradicts_a_mount_is_refused_not_overruled(security, options, message):
    with pytest.raises(VolumeError, match=message):
        pods.prepared(pod(securityContext=security), **options)


def test_a_container_that_drops_everything_gets_back_what_a_mount_needs():
    capabilities = primary(pod(securityContext={"capabilities": {"drop": ["ALL"]}}))["securityContext"]["capabilities"]

    assert {"drop": ["ALL"], "add": ["SYS_ADMIN", "CHOWN", "DAC_OVERRIDE", "FOWNER"]} == capabilities


@pytest.mark.parametrize("name", ["SYS_ADMIN", "CAP_DAC_OVERRIDE"])
def test_a_container_that_drops_just_what_a_mount_needs_is_refused(name):
    with pytest.raises(VolumeError, match=f"drops the capability {name.removeprefix('CAP_')}"):
        pods.prepared(pod(securityContext={"capabilities": {"drop": [name]}}))


def test_root_needs_no_escalation():
    security = primary(pod(securityContext={"allowPrivilegeEscalation": False}))["securityContext"]

    assert security["allowPrivilegeEscalation"] is False


def test_a_pod_that_may_not_run_as_root_says_so_unless_its_container_may():
    of_pod = {**pod(), "securityContext": {"runAsNonRoot": True}}

    with pytest.raises(VolumeError, match="runAsNonRoot"):
        pods.prepared(of_pod)
    assert primary({**of_pod, **pod(securityContext={"runAsNonRoot": False})})["securityContext"]["runAsUser"] == 0


def test_apparmor_is_lifted_by_field_and_by_annotation():
    spec, annotations = pods.prepared(pod(), apparmor_unconfined=True)

    assert {"type": "Unconfined"} == spec["containers"][0]["securityContext"]["appArmorProfile"]
    assert {"container.apparmor.security.beta.kubernetes.io/primary": "unconfined"} == annotations


# -- the disk


@pytest.mark.parametrize(("size", "limit"), [("1Gi", 1 << 29), ("3G", 1_500_000_000), (1001, 500)])
def test_the_cache_keeps_to_half_of_the_disk_since_the_pod_dies_when_it_is_full(size, limit):
    spec = pods.prepared(pod(), cache_size=size).spec

    assert {"sizeLimit": str(size)} == spec["volumes"][0]["emptyDir"]
    assert str(limit) == environment(spec["containers"][0])["VOLUME_CACHE_LIMIT"]


def test_a_cache_limit_of_ones_own_stays():
    given = pod(env=[{"name": "VOLUME_CACHE_LIMIT", "value": "1G"}])

    assert "1G" == environment(primary(given))["VOLUME_CACHE_LIMIT"]


def test_a_disk_without_a_limit_is_the_nodes():
    spec = pods.prepared(pod(), cache_size=None).spec

    assert [{"name": "volume-state", "emptyDir": {}}] == spec["volumes"]
    assert {"VOLUME_STATE_DIR": "/var/lib/volumes"} == environment(spec["containers"][0])


def test_a_disk_of_ours_keeps_its_size_until_another_one_is_asked_for():
    spec = pods.prepared(pod(), cache_size="50Gi", run_as_user=1000, state_dir="/state").spec
    larger = pods.prepared(spec, cache_size="80Gi").spec

    assert spec == pods.prepared(spec).spec
    assert [{"name": "volume-state", "emptyDir": {"sizeLimit": "80Gi"}}] == larger["volumes"]
    assert {"VOLUME_STATE_DIR": "/state", "VOLUME_CACHE_LIMIT": str(40 << 30)} == environment(larger["containers"][0])
    assert [{"name": "volume-state", "mountPath": "/state"}] == larger["containers"][0]["volumeMounts"]


def test_a_disk_that_is_mounted_there_already_is_left_alone():
    given = {
        **pod(volumeMounts=[{"name": "nvme", "mountPath": "/nvme/"}]),
        "volumes": [{"name": "nvme", "emptyDir": {}}],
    }
    spec = pods.prepared(given, state_dir="/nvme").spec

    assert given["volumes"] == spec["volumes"]
    assert given["containers"][0]["volumeMounts"] == spec["containers"][0]["volumeMounts"]
    assert {"VOLUME_STATE_DIR": "/nvme"} == environment(spec["containers"][0])


def test_the_disk_lies_where_the_containers_own_variable_points():
    container = primary(pod(env=[{"name": "VOLUME_STATE_DIR", "value": "/state"}]))

    assert [{"name": "volume-state", "mountPath": "/state"}] == container["volumeMounts"]


@pytest.mark.parametrize(
    ("container", "options", "message"),
    [
        ({"env": [{"name": "VOLUME_STATE_DIR", "value": "/a"}]}, {"state_dir": "/b"}, "state_dir is '/b', and the"),
        ({"env": [{"name": "VOLUME_STATE_DIR", "valueFrom": {}}]}, {}, r"takes \$VOLUME_STATE_DIR from elsewhere"),
        ({}, {"state_dir": "relative"}, "give an absolute path"),
        ({}, {"state_dir": "//"}, "give an absolute path"),
        ({}, {"cache_size": "0"}, "uncommitted work needs room"),
        ({}, {"limits": {"ephemeral-storage": "10Gi"}}, "evicted before its cache is full"),
    ],
)
def test_a_disk_that_cannot_be_is_refused(container, options, message):
    with pytest.raises(VolumeError, match=message):
        pods.prepared(pod(**container), **options)


def test_anothers_volume_of_the_same_name_is_not_replaced():
    given = {**pod(), "volumes": [{"name": "volume-state", "persistentVolumeClaim": {"claimName": "c"}}]}

    with pytest.raises(VolumeError, match="another volume called 'volume-state'"):
        pods.prepared(given)


def test_an_option_that_there_is_not_is_an_error():
    with pytest.raises(TypeError, match="no option cache"):
        pods.prepared(pod(), cache="1Gi")


# -- plugins


def test_plugins_have_the_last_word_and_their_numbers_become_text():
    class Site:
        @hookimpl
        def volume_pod(self, spec):
            seen.append(copy.deepcopy(spec))
            spec["tolerations"] = [{"key": "fuse"}]
            spec["containers"][0]["resources"]["limits"]["example.com/nic"] = 1

    seen = []
    take_out = register(Site())
    try:
        spec = pods.prepared(pod()).spec
    finally:
        take_out()

    assert "smarter-devices/fuse" in seen[0]["containers"][0]["resources"]["limits"]
    assert [{"key": "fuse"}] == spec["tolerations"]
    assert "1" == spec["containers"][0]["resources"]["limits"]["example.com/nic"]


def test_a_plugin_that_fails_lets_no_pod_pass():
    class Site:
        @hookimpl
        def volume_pod(self, spec):
            raise RuntimeError("no such pool")

    take_out = register(Site())
    try:
        with pytest.raises(VolumeError, match="no such pool"):
            pods.prepared(pod())
    finally:
        take_out()


# -- Kubernetes' own opinion


@pytest.mark.parametrize("options", [{}, {"privileged": True}, {"run_as_user": None, "cache_size": None}])
@pytest.mark.parametrize("version", ["1.25", "1.31", "1.37"])
def test_what_is_prepared_passes_kubernetes_own_schema(version, options):
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate: it has the schemas")
    given = pod(image="image", resources={"limits": {"cpu": 2}, "requests": {"cpu": 0.5}})
    spec = pods.prepared(given, limits={"memory": "4Gi"}, **options).spec
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}

    assert version == validator.validate(whole, version, strict=True)
