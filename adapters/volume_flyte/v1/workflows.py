"""Volumes that every task of a workflow of flytekit has mounted, though none of the tasks says so.

    decorated workflow ──compiled──> its nodes, each with a task of its own: the same one, under another name, found
                                     in a container through the workflow
                       ──run here──> its tasks as they are; while the workflow runs they mount what it wants

Why tasks of its own: a task is registered once and knows nothing of workflows.  One that two workflows share would
otherwise have the volumes of both, or of neither.

Always true:

  1. A task that runs outside the workflow, or within one that is not decorated, is what it was.
  2. What is registered names the workflow and how the task itself is found; a container needs no more than that.
  3. A transient failure to mount or to commit is recoverable, so that the task's retries count.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Self, cast

from flytekit import PodTemplate
from flytekit.configuration import SerializationSettings
from flytekit.core.array_node_map_task import ArrayNodeMapTask
from flytekit.core.base_task import TaskResolverMixin
from flytekit.core.condition import BranchNode
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.node import Node
from flytekit.core.python_auto_container import PythonAutoContainerTask
from flytekit.core.python_function_task import PythonFunctionTask
from flytekit.core.reference_entity import ReferenceEntity
from flytekit.core.tracker import TrackedInstance, extract_task_module
from flytekit.core.workflow import ImperativeWorkflow, PythonFunctionWorkflow, WorkflowBase
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.tools.module_loader import load_object_from_module

from volume_core import StorageError, VolumeError
from volume_flyte.mounting import Mounting

_DYNAMIC = PythonFunctionTask.ExecutionBehavior.DYNAMIC

_wanted: ContextVar[tuple[Mounting, ...]] = ContextVar("volume_flyte_wanted", default=())


class MountingWorkflow(PythonFunctionWorkflow):
    """A workflow whose tasks mount: a decorated one, or that of a dynamic task of one."""

    owners: tuple[Owner, ...]

    @classmethod
    def made_of(cls, workflow: PythonFunctionWorkflow, owners: tuple[Owner, ...]) -> Self:
        """Make *workflow* itself one: a new object would be registered beside it, under the same name."""
        workflow.__class__ = cls
        made = cast("Self", workflow)
        made.owners = owners
        if made.compiled:
            made._mount()
        return made

    def compile(self, **kwargs: Any) -> Any:
        """Compile, and give each node the task that mounts."""
        if self.compiled:
            return None
        outputs = super().compile(**kwargs)
        self._mount()
        return outputs

    def execute(self, **kwargs: Any) -> Any:
        """Run it here."""
        token = _wanted.set((*_wanted.get(), *(owner.mounting for owner in self.owners)))
        try:
            return super().execute(**kwargs)
        finally:
            _wanted.reset(token)

    def _mount(self) -> None:
        nodes: list[Node] = self.nodes
        for owner in reversed(self.owners):  # the outermost is the first
            nodes = owner.nodes(nodes)
        self._nodes = nodes


def mounting_workflow(
    workflow: PythonFunctionWorkflow, mounting: Mounting, pod_template: PodTemplate | None = None
) -> MountingWorkflow:
    """Make *workflow* one whose tasks have *mounting*; those without a pod template get *pod_template*.

    Raises VolumeError for one that is decorated already, or cannot be found by a name in a module.
    """
    if isinstance(workflow, MountingWorkflow):
        raise VolumeError(f"workflow {workflow.name} mounts volumes already: name them all in one decorator")
    _, module, name, _ = extract_task_module(workflow.function)
    if not module:
        raise VolumeError(f"workflow {name} is in a notebook, and a container could not import it: put it in a module")
    owner = Owner(module, name, workflow.name, mounting, pod_template)
    return MountingWorkflow.made_of(workflow, (owner,))


class Owner:
    """A decorated workflow: what its tasks mount, and the tasks that do it, each made once."""

    def __init__(
        self, module: str, name: str, full_name: str, mounting: Mounting, pod_template: PodTemplate | None
    ) -> None:
        self.module, self.name = module, name
        self.mounting = mounting
        self._full_name, self._pod_template = full_name, pod_template
        self._made: dict[int, tuple[Any, Any]] = {}  # by the identity of what they were made of, which is kept alive

    def nodes(self, nodes: Iterable[Node]) -> list[Node]:
        """Return *nodes*, of a workflow that is compiled, with tasks that mount."""
        made: dict[int, Node] = {}
        found = [self._node(node, made) for node in nodes]
        for node in made.values():  # which may come after one that is to wait for it
            node._upstream_nodes = [made.get(id(each), each) for each in node.upstream_nodes]
        return found

    def _node(self, node: Node, made: dict[int, Node]) -> Node:
        if id(node) not in made:
            made[id(node)] = new = copy.copy(node)
            entity = node.flyte_entity
            new._flyte_entity = self._branch(entity, made) if isinstance(entity, BranchNode) else self._entity(entity)
        return made[id(node)]

    def task(self, task: PythonAutoContainerTask) -> PythonAutoContainerTask:
        """Return what runs *task* with the volumes mounted."""
        return self._once(task, lambda: self._task(task))

    def _once(self, entity: Any, make: Callable[[], Any]) -> Any:
        if id(entity) not in self._made:
            self._made[id(entity)] = (entity, make())
        return self._made[id(entity)][1]

    def _entity(self, entity: Any) -> Any:
        """Return *entity*, a node's, with the volumes mounted; itself if it is nothing that Python runs here."""
        if isinstance(entity, ReferenceEntity):
            return entity
        if isinstance(entity, PythonAutoContainerTask):
            return self.task(entity)
        if isinstance(entity, ArrayNodeMapTask):
            return self._once(entity, lambda: self._map_task(entity))
        if isinstance(entity, WorkflowBase):
            return self._once(entity, lambda: self._workflow(entity))
        return entity

    def _task(self, task: PythonAutoContainerTask) -> PythonAutoContainerTask:
        _have_it_mount_what_is_wanted(task)
        made = copy.copy(task)
        made._name = f"{self._full_name}.{task.name}"
        made._task_resolver = resolver
        made.reset_command_fn()  # it was bound to the other one
        made.pod_template = task.pod_template or self._pod_template
        made.execute = _Mounts(made, task, self)
        return made

    def _map_task(self, entity: ArrayNodeMapTask) -> ArrayNodeMapTask:
        made = copy.copy(entity)
        made._run_task = self._entity(entity.python_function_task)
        made._name = f"{self._full_name}.{entity.name}"
        return made

    def _workflow(self, entity: WorkflowBase) -> WorkflowBase:
        nodes = self.nodes(entity.nodes)  # which compiles it
        made = copy.copy(entity)
        made._name = f"{self._full_name}.{entity.name}"
        if isinstance(entity, ImperativeWorkflow):
            made._compilation_state = entity.compilation_state.with_params(entity.compilation_state.prefix, nodes=nodes)
        else:
            made._nodes = nodes
        return made

    def _branch(self, entity: BranchNode, made: dict[int, Node]) -> BranchNode:
        block = copy.copy(entity._ifelse_block)
        block._case = self._case(block.case, made)
        block._other = block.other and [self._case(each, made) for each in block.other]
        block._else_node = block.else_node and self._node(block.else_node, made)
        return BranchNode(entity.name, block)

    def _case(self, case: Any, made: dict[int, Node]) -> Any:
        new = copy.copy(case)
        new._then_node = self._node(case.then_node, made)
        return new


class _Mounts:
    """In the place of the `execute` of a workflow's own task: with the volumes mounted it does what the task does."""

    def __init__(self, made: PythonAutoContainerTask, task: PythonAutoContainerTask, owner: Owner) -> None:
        self.task, self.owner = task, owner
        self._made = made
        inner = _mounts_of(task)
        self.owners: tuple[Owner, ...] = (owner, *(inner.owners if inner else ()))
        for other in self.owners[1:]:
            if shared := owner.mounting.paths & other.mounting.paths:
                raise VolumeError(
                    f"{', '.join(sorted(shared))}: workflow {owner.name} and workflow {other.name}, which it runs, "
                    f"both mount something there for task {task.name}: give them paths of their own"
                )

    def __call__(self, **kwargs: Any) -> Any:
        if getattr(self._made, "execution_mode", None) is _DYNAMIC:
            self._made._wf = None
            self._made._create_and_cache_dynamic_workflow()
            MountingWorkflow.made_of(self._made._wf, self.owners)
        mountings = [owner.mounting for owner in self.owners]
        return _mounted(mountings, lambda: type(self._made).execute(self._made, **kwargs))


class _MountsWhatIsWanted:
    """In the place of the `execute` of a task that a decorated workflow has: outside of one it changes nothing."""

    def __init__(self, task: PythonAutoContainerTask) -> None:
        self._task = task

    def __call__(self, **kwargs: Any) -> Any:
        wanted = _wanted.get()
        token = _wanted.set(())  # a dynamic task's own tasks run within it, here
        try:
            return _mounted(wanted, lambda: type(self._task).execute(self._task, **kwargs))
        finally:
            _wanted.reset(token)


def _have_it_mount_what_is_wanted(task: PythonAutoContainerTask) -> None:
    if not isinstance(vars(task).get("execute"), _Mounts | _MountsWhatIsWanted):
        task.execute = _MountsWhatIsWanted(task)


def _mounts_of(task: PythonAutoContainerTask) -> _Mounts | None:
    found = vars(task).get("execute")
    return found if isinstance(found, _Mounts) else None


def _mounted(mountings: Iterable[Mounting], body: Callable[[], Any]) -> Any:
    """Return what *body* returns, with *mountings* mounted while it runs."""
    with _recoverable() as failed, contextlib.ExitStack() as mounted:
        for mounting in mountings:
            mounted.enter_context(mounting.entered())
        try:
            return body()
        except BaseException as error:
            failed.append(error)  # its own affair
            raise


@contextlib.contextmanager
def _recoverable() -> Iterator[list[BaseException]]:
    """Have a transient failure retried; flytekit takes every other class of error for one that no retry can cure."""
    failed: list[BaseException] = []
    try:
        yield failed
    except StorageError as error:
        if not error.transient or any(each is error for each in failed):
            raise
        raise FlyteRecoverableException(f"a volume of the workflow: {error}") from error


class MountingTaskResolver(TrackedInstance, TaskResolverMixin):
    """Finds the tasks of decorated workflows: the workflow by module and name, and the task as it is found itself."""

    def name(self) -> str:
        """Return its name, for logs."""
        return "MountingTaskResolver"

    def loader_args(self, settings: SerializationSettings, task: PythonAutoContainerTask) -> list[str]:
        """Return what `load_task` takes."""
        mounts = _mounts_of(task)
        assert mounts is not None
        found = mounts.task.task_resolver
        owner = mounts.owner
        return ["workflow", owner.module, owner.name, found.location, *found.loader_args(settings, mounts.task)]

    def load_task(self, loader_args: list[str]) -> PythonAutoContainerTask:
        """Return the task that mounts.  Raises VolumeError if the workflow is not decorated."""
        _, module, name, found, *arguments = loader_args
        workflow = getattr(importlib.import_module(module), name)
        if not isinstance(workflow, MountingWorkflow):
            raise VolumeError(f"workflow {module}.{name} mounts no volumes here, but did when it was registered")
        finder = load_object_from_module(found)
        if isinstance(finder, WorkflowBase):  # its tasks are made in its body
            context = FlyteContextManager.current_context()
            with FlyteContextManager.with_context(context.with_execution_state(None)):
                finder.compile()
        [owner] = workflow.owners
        return owner.task(finder.load_task(loader_args=arguments))

    def get_all_tasks(self) -> list[PythonAutoContainerTask]:
        """Return nothing: which tasks there are is the workflows' affair."""
        return []


resolver = MountingTaskResolver()
