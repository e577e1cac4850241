-- tasks_loss <task> <token>: why a claim is over; nothing while it is not: then the process is told once when it is.
local function verb()
  open({ name_of(ARGV[5]) })
  local rec, token = find_named(name_of(ARGV[5])), tonumber(ARGV[6])
  if not rec then
    return { 'ok', { 'forgotten' } }
  elseif rec.state == CLAIMED and rec.token == token then
    watch(rec)
    return { 'ok', {} }
  end
  local code, _, extra = find_end(rec, token)
  if not code then
    return { 'ok', { 'forgotten' } }
  elseif code <= LAST_BY_HOLDER then
    return { 'ok', { 'ended' } }
  end
  local loss = {
    [END.expired] = 'expired', [END.superseded] = 'superseded', [END.cancelled] = 'cancelled', [END.overdue] = 'overdue',
    [END.stalled] = 'stalled',
  }
  return { 'ok', { loss[code] or 'ended', extra or '' } }
end
