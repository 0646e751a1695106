"""The captioning task with tiny random language models: what is trained, what counts in the loss, what is kept."""

import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from core_models.errors import Refused
from core_models.foundation import train as room
from core_models.foundation.encoder import RadiographEncoderConfig
from core_models.foundation.model import HEADS, FoundationModel, new_encoder, save
from core_models.foundation.tasks.generation import MAX_TOKENS, Generation
from tests.drafting import tiny
from tests.foundation.pools import batch, pools_of, recipe

HIDDEN = RadiographEncoderConfig().hidden_size


def llama(size: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(params=["gemma3", "llama"])
def task(request) -> Generation:
    words = tiny.tokenizer()
    torch.manual_seed(0)
    return Generation(HIDDEN, (tiny.model if request.param == "gemma3" else llama)(len(words)), words)


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(0)
    return new_encoder("scratch").eval()


def test_the_loss_is_the_mean_over_the_captions_tokens(task, trunk):
    captions = ("lungs clear", "heart is enlarged present normal")
    made = batch(2, captions)
    with torch.no_grad():
        out = trunk(made.images)
        loss = task.loss(trunk, made, out)
        total, count = 0.0, 0
        for row, caption in enumerate(captions):  # one by one, all logits, no padding
            ids = [*task.tokenizer(caption, add_special_tokens=False)["input_ids"], task.tokenizer.eos_token_id]
            before = task.prefix(out.last_hidden_state[row : row + 1])
            after = task.causal.get_input_embeddings()(torch.tensor([ids]))
            logits = task.causal(inputs_embeds=torch.cat((before, after), 1)).logits[0, before.shape[1] - 1 : -1]
            total += float(F.cross_entropy(logits.float(), torch.tensor(ids), reduction="sum"))
            count += len(ids)
    assert before.shape == (1, 65, 32)
    assert float(loss) == pytest.approx(total / count, rel=1e-4)


def test_gradients_reach_projector_and_encoder_but_not_the_language_model(task, trunk):
    trunk.zero_grad()
    made = batch(2, ("lungs clear", "heart"))
    task.loss(trunk, made, trunk(made.images)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.projector.parameters())
    assert trunk.stem[0].weight.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in task.language.parameters())


def test_lora_learns_and_the_rest_of_the_language_model_does_not(trunk):
    words = tiny.tokenizer()
    task = Generation(HIDDEN, tiny.model(len(words)), words, lora_rank=2)
    made = batch(1, ("lungs clear",))
    task.loss(trunk, made, trunk(made.images)).backward()
    learning = {n for n, p in task.language.named_parameters() if p.grad is not None}
    assert learning
    assert all("lora_" in name for name in learning)
    assert not any("lora_" in name for name in task.frozen())


def test_a_batch_without_captions_has_no_loss(task, trunk):
    made = batch(2)
    assert task.loss(trunk, made, trunk(made.images)) is None


def test_captions_are_cut_end_with_the_end_token_and_hold_no_control_words(task):
    ids, labels = task.targets(["heart " * 200, "clear", "<eos> lungs"])
    assert ids.shape == labels.shape == (3, MAX_TOKENS)
    end = task.tokenizer.eos_token_id
    assert ids[0, -1] == end
    for row in labels:
        real = row[row != -100]
        assert real[-1] == end
        assert (real == end).sum() == 1  # "<eos>" in a caption is text


def test_a_tokenizer_without_an_end_is_refused():
    words = tiny.tokenizer()
    words.eos_token = None
    with pytest.raises(Refused, match="end-of-text"):
        Generation(HIDDEN, tiny.model(len(words)), words)


def test_captions_come_out_as_text(task, trunk):
    first = task.captions(trunk, batch(2).images, new_tokens=5)
    assert len(first) == 2
    assert all(isinstance(text, str) for text in first)
    assert first == task.captions(trunk, batch(2).images, new_tokens=5)


@pytest.mark.parametrize("rank", [0, 2], ids=["frozen", "lora"])
def test_it_trains_through_the_shared_loop_and_the_language_model_is_not_saved(tmp_path, rank):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    some = recipe(12, ("findings", "generation"), checkpoint_every=20, average=0.1)
    words = tiny.tokenizer()
    language = tiny.model(len(words))
    before = {k: v.clone() for k, v in language.state_dict().items()}
    torch.manual_seed(0)
    model = FoundationModel(new_encoder("scratch"), ("findings",), 16)
    model.add_task("generation", Generation(HIDDEN, language, words, lora_rank=rank))
    said: list[str] = []
    judged: list[float] = []

    def judge(averaged: FoundationModel, step: int) -> dict[str, float]:
        made = batch(2, ("large left pleural effusion", "normal chest radiograph"))
        with torch.no_grad():
            judged.append(float(averaged.tasks["generation"].loss(None, made, averaged.encoder(made.images))))
        return {"caption": judged[-1]}

    trained, summary = room.train(
        some, pools_of(some), tmp_path / "run", log=said.append, model=model, judge=judge, judge_every=3
    )
    AcceleratorState._reset_state(True)
    assert judged[-1] < judged[0]
    assert summary["losses"]["generation"] > 0
    after = {k.replace(".base_layer", ""): v for k, v in trained.tasks["generation"].causal.state_dict().items()}
    assert all(torch.equal(after[k], v) for k, v in before.items())
    (checkpoint,) = (tmp_path / "run").glob("at-*")
    save(trained, tmp_path / "kept")
    from safetensors.torch import load_file

    for path in (checkpoint / room.WEIGHTS, checkpoint / room.AVERAGE, tmp_path / "kept" / HEADS):
        names = [k for k in load_file(path) if "language" in k]
        assert all("lora_" in k for k in names)
        assert bool(names) == bool(rank)
        assert any("generation.projector" in k for k in load_file(path))


def test_the_prepared_gemma_takes_the_place_of_the_tiny_ones(trunk):
    """Where it is prepared: bf16 weights behind a float32 projector, and a caption is likelier than its words mixed."""
    from core_models.drafting import language_model
    from webapp import settings

    models = settings.load().models
    if not language_model.prepared(models):
        pytest.skip("the language model is not prepared on this machine")
    base = language_model.load(models)
    task = Generation(HIDDEN, base.model, base.tokenizer)
    assert not any(p.requires_grad for p in task.language.parameters())
    texts = ("The heart is enlarged and there is a small left pleural effusion.",
             "left there The pleural enlarged is small heart a is. effusion and")  # fmt: skip
    losses = []
    for text in texts:
        made = batch(1, (text,))
        loss = task.loss(trunk, made, trunk(made.images))
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] < losses[1]
    assert all(torch.isfinite(p.grad).all() for p in task.projector.parameters())
