-- tasks_abandon <task> <token>: nobody cares for this claim any more.
local function verb()
  open({ name_of(ARGV[5]) })
  begin_queues()
  local rec, token = find_named(name_of(ARGV[5])), tonumber(ARGV[6])
  if rec and rec.state == CLAIMED and token > 0 and rec.resumes == token then
    -- It was resumed, and nobody has heard of it.
    release_task(rec)
  elseif rec and rec.token == token then
    if rec.state == CLAIMED then
      release_task(rec)
    elseif rec.state == BLOCKED or rec.state == RESUMABLE then
      without(rec, FLAG.awaited)
      touch(rec)
      if rec.state == RESUMABLE then
        nudge(rec.number)
      end
    end
  end
  return { 'ok', 1 }
end
