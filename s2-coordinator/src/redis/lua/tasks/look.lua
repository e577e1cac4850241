-- What there is to see of a task.

-- In whose queue or hands a task is.
local function session_of(rec)
  if rec.state == CLAIMED or rec.state == BLOCKED or rec.state == RESUMABLE then
    return rec.holder
  end
  return rec.state == READY and rec.assignee or ''
end

local function describe_task(rec)
  return {
    rec.id, rec.terms, read(rec.name16 .. 'd') or '', has(rec, FLAG.after) and read(rec.name16 .. 'f') or '', STATES[rec.state],
    rec.failures, session_of(rec),
  }
end

local function describe_outcome(rec)
  local said = has(rec, FLAG.outcome) and read(rec.name16 .. 'o') or ''
  if rec.state == DONE then
    return { 'done', said }
  elseif rec.state == CANCELLED then
    return { 'cancelled', said }
  end
  local cause = cmsgpack.unpack(said)
  return { 'failed', cause[1], cause[2], history_of(rec) }
end
