-- tasks_assign <task> <name or empty>
local function verb()
  open({ name_of(ARGV[5]), 'name:' .. ARGV[6] })
  begin_queues()
  local rec, to = find_named(name_of(ARGV[5])), ARGV[6]
  if not rec then
    return { 'unknown_task', tonumber(ARGV[5]) }
  elseif rec.state ~= WAITING and rec.state ~= DELAYED and rec.state ~= READY and rec.state ~= ON_HOLD then
    return { 'wrong_state', rec.id, STATES[rec.state], 'assign' }
  end
  local session = to ~= '' and named(to)
  if session and not may(Q.kinds[session.kind], rec.class) then
    return { 'not_eligible', rec.id, to, missing(Q.kinds[session.kind].offers, Q.classes[rec.class].requires) }
  elseif rec.assignee ~= to then
    note('assigned', rec, to ~= '' and '"to":"' .. to .. '"' or '')
    move(rec, rec.state, function()
      rec.assignee = to
      without(rec, FLAG.had)
    end)
  end
  return { 'ok', 1 }
end
