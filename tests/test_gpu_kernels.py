"""Kernels counted in the text of a program for a GPU."""

from benchmarks.gpu_kernels import Kernel, innermost

PROGRAM = """\
HloModule jit_f, is_scheduled=true

%fused_add (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %a = f32[4]{0} add(%p, %p)
  %b = f32[4]{0} add(%a, %p)
  %c = f32[4]{0} add(%b, %p)
  %d = f32[4]{0} add(%c, %p)
  ROOT %e = f32[4]{0} add(%d, %p)
}

%body (state: (s32[], f32[4], bf16[2,4])) -> (s32[], f32[4], bf16[2,4]) {
  %state = (s32[], f32[4]{0}, bf16[2,4]{1,0}) parameter(0)
  %step = s32[] get-tuple-element(%state), index=0
  %x = f32[4]{0} get-tuple-element(%state), index=1
  %y = bf16[2,4]{1,0} get-tuple-element(%state), index=2
  %loop_add = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused_add, metadata={op_name="jit(f)/add"}
  %conv.1 = (f32[4]{0}, u8[0]{0}) custom-call(%loop_add, %y), custom_call_target="__cudnn$convForward"
  %result = f32[4]{0} get-tuple-element(%conv.1), index=0
  ROOT %next = (s32[], f32[4]{0}, bf16[2,4]{1,0}) tuple(%step, %result, %y)
}

ENTRY %main (x: f32[4], y: bf16[2,4]) -> (s32[], f32[4], bf16[2,4]) {
  %x.1 = f32[4]{0} parameter(0)
  %y.1 = bf16[2,4]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %copy.1 = f32[4]{0} copy(%x.1)
  %start = (s32[], f32[4]{0}, bf16[2,4]{1,0}) tuple(%zero, %copy.1, %y.1)
  ROOT %while = (s32[], f32[4]{0}, bf16[2,4]{1,0}) while(%start), condition=%is_more, body=%body
}
"""  # noqa: E501


def test_the_innermost_loop_is_counted_without_what_is_inside_of_kernels():
    assert innermost(PROGRAM) == (
        Kernel("loop", 16 + 16, "jit(f)/add"),
        Kernel("library", 16 + 16 + 16, ""),
    )


def test_a_program_without_a_loop():
    entry = PROGRAM[PROGRAM.index("ENTRY") :]
    assert innermost(entry) == (Kernel("copy", 32, ""),)


def test_nothing():
    assert innermost("") == ()
