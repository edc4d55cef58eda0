"""TRL's GRPOTrainer with the few changes that a 4-bit vision-language model with named adapters needs.

Each override says what it fixes in TRL 1.14 and when it can be removed. Everything else is TRL.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    ProcessorMixin,
    TrainerCallback,
)
from trl import GRPOTrainer
from trl.data_utils import prepare_multimodal_messages
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import pad, selective_log_softmax, selective_log_softmax_and_entropy

from lite.config.launch import for_processes
from lite.config.runs import StageConfig, with_values
from lite.models import shared_prompt
from lite.models.adapters import active, load_weights
from lite.models.families import family_of
from lite.models.inputs import opened_tag
from lite.models.memory import GENERATING, LOADING, SCORING, TRAINING
from lite.models.merged import choose_weights, sampling
from lite.schema import LiteError
from lite.stages.filter import evaluating
from lite.train.run_folder import last_checkpoint
from lite.train.trl_fixes import adjust, few_logits_at_once, learning

logger = logging.getLogger(__name__)


class StageTrainer(GRPOTrainer):
    """Trains the active adapter of `model` by GRPO.

    Args:
        model: A PEFT model; the adapter's name is free.
        reward_funcs: See `lite.train.rewards`.
        args: TRL's configuration with lite's fields.
        train_dataset: Shuffled rows with `prompt` (one turn with image placeholders), `images` (a list, may be empty)
            and the columns that the rewards ask for.
        processing_class: The model's processor.
        callbacks: Added to TRL's.
        reference: Names of the adapters that are active in the KL reference; none: the bare base.
    """

    def __init__(
        self,
        model: PeftModel,
        reward_funcs: list,
        args: StageConfig,
        train_dataset: Dataset,
        processing_class: ProcessorMixin,
        callbacks: list[TrainerCallback] | None = None,
        reference: Sequence[str] = (),
    ):
        # With beta > 0 TRL copies an adapter that must be named `default` to one named `ref`. Our adapters have names
        # of their own and the reference needs no copy, so TRL is built with beta 0 and told the true one afterwards;
        # it then computes the reference inside `model.disable_adapter()`, for which we put in the adapters that
        # belong to the reference. Remove when TRL takes the reference's adapters as an argument.
        beta = args.beta
        # TRL shuffles by a generator whose state is in no checkpoint: after its first epoch, a resumed run would see
        # other prompts than an unbroken one. The dataset's own order is taken instead, in every epoch. Remove when
        # TRL's sampler resumes.
        args = for_processes(with_values(args, beta=0.0, shuffle_dataset=False))
        if GRPOTrainer.__module__ != "trl.trainer.grpo_trainer":
            # Unsloth's compute_loss runs the model itself, images repeated per completion, and skips our log-probs.
            raise LiteError(
                "Unsloth was imported before lite and rewrote TRL's trainer. Import lite.train.trainer first."
            )
        exact = learning(model)
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
        )
        self.beta = args.beta = beta
        model.disable_adapter = partial(active, model, reference)
        adjust(self, exact)
        self.shares_prompts = args.shared_prompt and self._can_share_prompts()
        if self.shares_prompts:
            shared_prompt.prepare(model)
        elif family_of(self.model.config).only_shared:
            # Remove with the test of TRL's split_pixel_values_by_grid, once TRL leaves rows of tiles together.
            raise LiteError(
                f"TRL shows completions of {self.model.config.model_type} the pixels of other prompts unless prompts "
                "are shared. Set shared_prompt: true and use_liger_kernel: false."
            )
        self.sampling_weights = choose_weights(model, args.sampling_weights) if self.shares_prompts else "packed"
        # TRL corrects a sampler that is not quite the policy by importance sampling, but only where `use_vllm` is set;
        # vLLM itself is started in TRL's constructor. Remove when TRL goes by the log-probs that a sampler returns.
        self.use_vllm = self.use_vllm or self.sampling_weights == "merged"
        self._opened = opened_tag(processing_class, **self.chat_template_kwargs)
        self.doing = LOADING  # what the GPU's memory was last used for
        self._encoded: EncodedPrompts | None = None  # while completions of these prompts are made and scored
        self._compared = False

    def _can_share_prompts(self) -> bool:
        reason = shared_prompt.unshared(self.model)
        if self.use_liger_kernel:
            reason = "use_liger_kernel has log-probs of its own"
        if self.aux_loss_enabled:
            reason = "the auxiliary loss of a mixture of experts counts every token of every row"
        if reason:
            logger.warning("Prompts are computed once per completion, not once per group: %s.", reason)
        return reason is None

    # From here to `_until_end`, the methods compute a prompt where TRL computes G copies of it: see
    # lite/shared_prompt.py. Remove them when TRL shares prompts itself.

    def _group_size(self, rows: int) -> int:
        """How many neighbouring rows of a batch surely share a prompt: G, or less where a batch cuts groups."""
        return math.gcd(self.num_generations if self.model.training else self.num_generations_eval, rows)

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        # TRL preprocesses each image 2 G times, twice for every row, and copies it once more. It sees no images here
        # (nor do the rewards); they are preprocessed once per prompt, and the batch gets them per prompt.
        if not self.shares_prompts:
            return super()._generate_and_score_completions(inputs)
        group = self._group_size(len(inputs))
        prompts = [prepare_multimodal_messages(row["prompt"], row.get("images")) for row in inputs[::group]]
        # One by one: how a processor lays the images of several prompts out in one tensor is then its own affair.
        encoded = [super(StageTrainer, self)._tokenize_prompts([prompt]) for prompt in prompts]
        vision = [self._to_device(shared_prompt.of_images(fields)) if images else {} for _, images, fields in encoded]
        vision = vision if any(vision) else None
        self._encoded = EncodedPrompts([ids[0] for ids, _, _ in encoded], vision)
        try:
            batch = super()._generate_and_score_completions(
                [{key: value for key, value in row.items() if key != "images"} for row in inputs]
            )
        finally:
            self._encoded = None
        if not self._compared:
            self._compare_with_trl(batch, vision)
            self._compared = True
        # TRL hands on what it finds under this name.
        return batch if vision is None else batch | {"pixel_values": vision}

    @torch.no_grad()
    def _compare_with_trl(self, batch: dict, vision: shared_prompt.Vision | None) -> None:
        # A patched model (Unsloth) that bypasses our attention would silently learn from wrong log-probs, so the first
        # two completions of a run are computed both ways.
        rows = min(2, self._group_size(len(batch["prompt_ids"])))
        ids = torch.cat([batch["prompt_ids"][:rows], batch["completion_ids"][:rows]], 1)
        mask = torch.cat([batch["prompt_mask"][:rows], batch["completion_mask"][:rows]], 1)
        length = batch["completion_ids"].shape[1]
        first = vision and vision[:1]
        images = dict(first[0]) if first else {}
        if "image_grid_thw" in images:
            images["num_images"] = [len(images["image_grid_thw"])]
            images["mm_token_type_ids"] = (ids[:1] == self.model.config.image_token_id).int()
        elif images:
            images["num_tiles"] = [len(images["pixel_values"])]
        with evaluating(self.model):
            stock = torch.cat(
                [
                    self._full_logits_logps(self.model, ids[row, None], mask[row, None], length, **images)[0]
                    for row in range(rows)
                ]
            )
            ours, _ = shared_prompt.group_log_probs(
                self.model, ids, mask, length, rows, first, partial(self._log_softmax, entropy=False)
            )
        off = (ours.float() - stock.float()).abs().mean()
        # By what is computed in, not by the dtype of the result: accelerate's autocast returns fp32 in either case.
        half = self.args.bf16 or self.args.fp16 or ours.dtype == torch.bfloat16
        if off > (0.1 if half else 1e-3):
            raise LiteError(
                f"shared_prompt computes other log-probs than TRL with this model (off by {off:.2g} on average). "
                "Set shared_prompt: false, and please report the model and the versions of its packages."
            )

    def _tokenize_prompts(self, prompts: list):
        if self._encoded:
            group = len(prompts) // len(self._encoded.ids)
            return [ids for ids in self._encoded.ids for _ in range(group)], None, {}
        # TRL hands `None` for a prompt without an image to the processor, which takes `[]`: a batch of image and text
        # documents crashes. Remove when TRL passes empty lists.
        prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        return prompt_ids, images and [row or [] for row in images], fields

    def _generate_single_turn(self, prompt_ids: list, images: list | None, *args, **kwargs):
        # One prefill per prompt.
        self.doing = GENERATING
        if not self.shares_prompts:
            return super()._generate_single_turn(prompt_ids, images, *args, **kwargs)
        group = len(prompt_ids) // len(self._encoded.ids)
        rows = [torch.tensor(ids) for ids in self._encoded.ids]
        inputs = self._to_device(
            {
                "ids": pad(rows, padding_value=self._tokenizer.pad_token_id, padding_side="left"),
                "mask": pad([torch.ones_like(ids) for ids in rows], padding_value=0, padding_side="left"),
            }
        )
        log_probs = [] if self.sampling_weights == "merged" else None
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
            ) as model,
            torch.no_grad(),
            sampling(model, self.sampling_weights),
        ):
            completions = shared_prompt.generate(
                model, **inputs, vision=self._encoded.vision, group_size=group,
                generation_config=self.generation_config, log_probs=log_probs,
            ).tolist()  # fmt: skip
        completions = [self._until_end(tokens) for tokens in completions]
        if log_probs is None:
            return completions, None
        rows = torch.stack(log_probs, 1).tolist()
        return completions, [row[: len(tokens)] for row, tokens in zip(rows, completions, strict=True)]

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        pixel_values: list | None = None,
        image_grid_thw: list[torch.Tensor] | None = None,
        **kwargs,
    ):
        # The policy's, the old and the reference's log-probs all come by here, with the adapters that are to be active.
        # What follows the policy's is their backward pass, then the optimiser's step.
        self.doing = TRAINING if torch.is_grad_enabled() else SCORING
        if not self.shares_prompts:
            if pixel_values is not None and len(pixel_values) == 0:
                # A micro-batch of text documents out of a batch with images crashes in the vision tower. Remove when
                # TRL passes None.
                pixel_values = image_grid_thw = None
            with few_logits_at_once(self, len(input_ids), logits_to_keep, batch_size) as batch_size:
                return super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size,
                    compute_entropy=compute_entropy, pixel_values=pixel_values, image_grid_thw=image_grid_thw, **kwargs,
                )  # fmt: skip
        logps, entropies = shared_prompt.group_log_probs(
            model,
            input_ids,
            attention_mask,
            completion_length=logits_to_keep,
            group_size=self._group_size(len(input_ids)),
            vision=self._encoded.vision if self._encoded else pixel_values,
            log_softmax=partial(self._log_softmax, entropy=compute_entropy),
        )
        return logps, entropies, None

    def _prepare_inputs(self, generation_batch: list[dict]) -> dict:
        # TRL shuffles the rows of a generation batch before it cuts it into micro-batches, which scatters groups.
        if not (self.shares_prompts and self.model.training):
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = shared_prompt.shuffle_and_split(
                batch, self._group_size(len(batch["prompt_ids"])), steps
            )
        return self._buffered_inputs[self._step % steps]

    def _log_softmax(self, logits: torch.Tensor, tokens: torch.Tensor, entropy: bool):
        if not entropy:
            return selective_log_softmax(logits, tokens, temperature=self.temperature), None
        return selective_log_softmax_and_entropy(
            logits, tokens, temperature=self.temperature, entropy_requires_grad=self._entropy_bonus_enabled
        )

    def _to_device(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {key: tensor.to(self.accelerator.device) for key, tensor in tensors.items()}

    def _until_end(self, tokens: list[int]) -> list[int]:
        """A completion up to its first end-of-sequence token."""
        ends = [i for i, token in enumerate(tokens) if token in self.eos_token_ids]
        return tokens[: ends[0] + 1] if ends else tokens

    def _calculate_rewards(self, inputs: list[dict], *args):
        # Where each reward is normalised by itself, TRL's `frac_reward_zero_std` tells of the whole batch: 0, although
        # most groups may have equal rewards and teach nothing. Remove when TRL counts groups there, too.
        if self._opened:
            # A thinking model's template opens the tag that the completion then lacks, and TRL's rewards see the
            # completion alone. Remove when they see what the prompt has opened.
            completions = [[turn | {"content": self._opened + turn["content"]} for turn in c] for c in args[1]]
            args = (args[0], completions, *args[2:])
        rewards = super()._calculate_rewards(inputs, *args)
        training = self.model.training
        counted = rewards[:, self.reward_weights.to(rewards.device) != 0].nan_to_num()
        groups = counted.view(-1, self.num_generations if training else self.num_generations_eval, counted.shape[1])
        equal = (groups == groups[:, :1]).flatten(1).all(1)
        self._metrics["train" if training else "eval"]["equal_groups"].append(equal.float().mean().item())
        return rewards

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        # transformers activates the first active adapter alone and makes it learn: a resumed stage 2 would train
        # stage 1. The adapters are in place, only their weights are missing. Remove when transformers resumes
        # several active adapters.
        for name in self.model.peft_config:
            load_weights(self.model, Path(resume_from_checkpoint) / name, name)

    def _save_rng_state(self, output_dir: str) -> None:
        # Every process writes a file, and the trainer's state, which says that a checkpoint is complete, comes after.
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Resumed by another number of processes: without a state of its own, each would draw again what it drew at the
        # start of the run.
        if checkpoint and _random_states(Path(checkpoint)) != self.args.world_size:
            logger.warning("%s is of another number of processes: completions are drawn anew from here.", checkpoint)
            set_seed(self.args.seed + 1000 * (self.state.global_step + 1), device_specific=True)
            return
        super()._load_rng_state(checkpoint)

    def _save_checkpoint(self, model, trial) -> None:
        # A checkpoint that a full disk cut short would be taken for the newest one at the next start.
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            folder = Path(self.args.output_dir)
            shutil.rmtree(folder / f"checkpoint-{self.state.global_step}", ignore_errors=True)
            survivor = last_checkpoint(folder)
            raise LiteError(
                f"Could not write checkpoint-{self.state.global_step} to {folder} ({error}). "
                f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB are free there. "
                + (f"{survivor.name} is intact. " if survivor else "")
                + "Make room, then run the same command again: it continues from the last checkpoint."
            ) from error


@dataclass
class EncodedPrompts:
    """The unique prompts of a generation batch: token ids and pixels of each."""

    ids: list[list[int]]
    vision: shared_prompt.Vision | None


def _random_states(checkpoint: Path) -> int:
    """How many processes have left the state of their random numbers there."""
    return len(list(checkpoint.glob("rng_state*.pth")))
